"""Attacks whose loop is run by another package: advertorch, foolbox or pyautoattack."""
