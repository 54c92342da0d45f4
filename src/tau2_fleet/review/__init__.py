"""Whose fault it was: errors of customer and agent in a run's simulations, and the score without the customer's."""
