"""Preparation of data sets: Arrow tables in the layout of the ViLT family (`tools/prepare_data.py`)."""
