"""What tests of text generation need, for your own as for Fabula's: a model directory in a few kilobytes."""
