"""The experiments behind the READMEs' tables: declared grids of trainings, one runner. Imports no Paddle."""
