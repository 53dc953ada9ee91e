"""The door that looks like transformers: a config, its rules, generate(), what comes back, and streamers."""
