"""AdamW, its schedule, and the rules that say how fast a variable learns and whether it decays."""
