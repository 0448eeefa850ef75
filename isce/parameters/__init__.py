"""Parameters, typed and validated: of training, attack, min-max and explain runs."""
