"""What the commands show: text, colours, tables, JSON."""
