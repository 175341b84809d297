"""Selection: budgets, allocation and selectors."""
