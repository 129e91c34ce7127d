with

crosswalk as (

    select * from {{ ref('int_account_crosswalk') }}
    where source_system in ('orders', 'behavior')

),

-- Nearly every account is one customer and one tenant, both of its own id, for all time. These are the others.
other_mappings as (

    select * from crosswalk
    where
        account_id <> source_account_id
        or valid_from_date is not null
        or valid_until_date is not null
        or is_internal

),

other_accounts as (

    select account_id from other_mappings
    union
    select source_account_id as account_id from other_mappings

),

members as (

    select
        crosswalk.account_id,
        crosswalk.source_system,
        crosswalk.source_account_id,
        crosswalk.is_internal,
        coalesce(crosswalk.valid_from_date, {{ beginning() }}) as from_date,
        coalesce(crosswalk.valid_until_date, {{ end_of_time() }}) as until_date
    from crosswalk
    inner join other_accounts on crosswalk.account_id = other_accounts.account_id

),

dates as (

    select
        account_id,
        {{ beginning() }} as from_date
    from other_accounts
    union
    select
        account_id,
        from_date
    from members
    union
    select
        account_id,
        until_date as from_date
    from members
    where until_date < {{ end_of_time() }}

),

spans as (

    select
        account_id,
        from_date,
        coalesce(lead(from_date) over (partition by account_id order by from_date), {{ end_of_time() }}) as until_date
    from dates

),

final as (

    select
        spans.account_id,
        nullif(spans.from_date, {{ beginning() }}) as valid_from_date,
        nullif(spans.until_date, {{ end_of_time() }}) as valid_until_date,
        {%- for system, series in {'orders': 'order_series_id', 'behavior': 'usage_series_id'}.items() %}
        -- No id of a source begins with a blank, so a series of several is taken for none of them.
        case count(case when members.source_system = '{{ system }}' then 1 end)
            when 0 then null
            when 1 then min(case when members.source_system = '{{ system }}' then members.source_account_id end)
            else ' ' || spans.account_id || ' ' || {{ as_text('spans.from_date') }}
        end as {{ series }}{% if not loop.last %},{% endif %}
        {%- endfor %}
    from spans
    left join members
        on
            spans.account_id = members.account_id
            and spans.from_date >= members.from_date
            and spans.from_date < members.until_date
            and not members.is_internal
    group by spans.account_id, spans.from_date, spans.until_date

)

select * from final
