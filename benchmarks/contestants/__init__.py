"""What is measured against each other: each a program that trains piece by piece on request."""
