"""Selection: budgets, allocation, selectors, cleaning steps and the result."""
