"""Words and rules every other part shares; never torch."""
