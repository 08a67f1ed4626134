"""Using trained nets: translating, sampling, importing and exporting weights."""
