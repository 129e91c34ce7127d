{#- Pre-hook of account_tier_changes: takes out the rows of the dates to make, and those of dates that never stood: a build
    that failed has made them, and what follows was compared with an older date. -#}
{% macro remove_tier_changes() -%}
    {%- if is_incremental() -%}
    {%- set built_dates = dates_built_before() %}
    delete from {{ this }}
    {%- if built_dates %}
    where
        as_of_date in (select as_of_date from {{ ref('int_tier_dates') }})
        or as_of_date not in (select built.as_of_date from {{ built_dates }} as built)
    {%- endif -%}
    {%- endif -%}
{%- endmacro %}


{#- The last day of the month before that of a day. -#}
{% macro month_end_before(day) -%}
    {{ days_before(day, 'cast(extract(day from ' ~ day ~ ') as integer)') }}
{%- endmacro %}


{#- Accounts with their tier on each date of a relation (as_of_date) and on another date that it names (`before`), as a
    query: one row per date and account of either; tier or tier_before is null where the account is not among them. -#}
{% macro tiers_compared(dates, before) -%}
    select
        coalesce(tiers_now.as_of_date, tiers_then.as_of_date) as as_of_date,
        coalesce(tiers_now.account_id, tiers_then.account_id) as account_id,
        tiers_then.tier as tier_before,
        tiers_now.tier
    from (
        select
            dates.as_of_date,
            account_tiers.account_id,
            account_tiers.tier
        from {{ dates }} as dates
        inner join {{ ref('account_tiers') }} as account_tiers on dates.as_of_date = account_tiers.as_of_date
    ) as tiers_now
    full outer join (
        select
            dates.as_of_date,
            account_tiers.account_id,
            account_tiers.tier
        from {{ dates }} as dates
        inner join {{ ref('account_tiers') }} as account_tiers on dates.{{ before }} = account_tiers.as_of_date
    ) as tiers_then
        on
            tiers_now.as_of_date = tiers_then.as_of_date
            and tiers_now.account_id = tiers_then.account_id
{%- endmacro %}
