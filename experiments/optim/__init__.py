"""AdamW, its schedule, and the rules that say which variable decays."""
