"""The experiments behind the tables of docs/results: grids of trainings, one runner. Imports no Paddle."""
