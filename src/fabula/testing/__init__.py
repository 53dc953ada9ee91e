"""What tests of text generation need, for Fabula's own and for yours."""
