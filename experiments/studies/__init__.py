"""Studies: many runs that answer a question, each in a folder of its own, and the tables and pictures made of them."""
