-- No CTE, against the habit of the other models: PostgreSQL does not merge a view that holds one into the query that
-- reads it, and a reader that wants the orders of a few customers would scan every line instead of using an index.
{{ order_lines_as_known() }}
