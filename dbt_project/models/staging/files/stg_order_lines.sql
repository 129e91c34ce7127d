-- No CTE, against the habit of the other models: PostgreSQL does not merge a view that holds one into the query that
-- reads it, and a reader that wants the orders of a few customers would scan every line instead of using an index.
select
    versions.row_key,
    versions.order_id,
    versions.customer_id,
    versions.product_id,
    versions.country,
    versions.quantity,
    versions.line_type,
    versions.ordered_at,
    {{ local_date('versions.ordered_at') }} as order_date,
    versions.known_on,
    case
        when versions.currency = '{{ var("reporting_currency") }}' then versions.amount
        else cast(versions.amount * exchange_rates.rate as numeric(18, 2))
    end as amount
from {{ source('raw_files', 'order_lines') }} as versions
left join {{ source('raw_files', 'order_lines') }} as newer_versions
    on
        versions.row_key = newer_versions.row_key
        and versions.load_seq < newer_versions.load_seq
left join {{ ref('stg_exchange_rates') }} as exchange_rates
    on
        versions.currency = exchange_rates.currency
        and {{ local_date('versions.ordered_at') }} >= exchange_rates.effective_from
        and (
            {{ local_date('versions.ordered_at') }} < exchange_rates.effective_until
            or exchange_rates.effective_until is null
        )
where newer_versions.row_key is null
