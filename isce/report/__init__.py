"""From records to numbers, tables, plots and judged claims."""
