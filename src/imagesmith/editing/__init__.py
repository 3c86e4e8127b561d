"""Change a named region of a photograph: which pixels (regions), what happens to them (operations), and the record."""
