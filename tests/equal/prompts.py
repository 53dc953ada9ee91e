"""Twenty prompts of different kinds and lengths."""

PROMPTS = [
    "The capital of France is",
    "A list of colors: red, blue",
    "Once upon a time, in a village by the sea, there lived",
    "def fibonacci(n):\n    ",
    "1, 2, 3, 4, 5,",
    "Water boils at",
    "To be, or not to be,",
    "The mitochondria is",
    "import numpy as np\n\nx = np.",
    "Q: What is the largest planet in the solar system?\nA:",
    "El perro corre por",
    "Der schnelle braune Fuchs",
    "In 1969, Neil Armstrong",
    "Ingredients:\n- 2 eggs\n- 100 g flour\n-",
    "Dear Sir or Madam,\n\nI am writing to",
    "The three laws of motion state that",
    "SELECT name FROM users WHERE",
    "Roses are red, violets are",
    "今日は",
    "<html>\n<head>\n<title>",
]
