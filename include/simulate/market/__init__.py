"""A simulated B2B company of any size, made by arithmetic on whole columns, with its hidden truth beside it.

`scales` says how large, `population` who the accounts are and how engaged they are week by week, which decides
everything else; `orders`, `behavior` and `crm` are what systems would have recorded of it; `truth` is what no
system knows and no model may read; `write` puts it all into files. The same seed and the same locked versions of
numpy and pyarrow give the same rows.
"""
