{{ config(alias='freshness') }}

{#- Where the rows of each source and entity stand, and the column that dates them. -#}
{%- set raw_tables = {
    ('orders', 'order_lines'): ('raw_files', 'order_lines', 'ordered_at'),
    ('behavior', 'events'): ('raw_files', 'events', 'event_at'),
} %}
{%- for system, source_name, entities in [
    ('raw_hubspot', 'crm', ['companies', 'contacts', 'deals', 'tickets', 'feedback_submissions']),
    ('raw_salesforce', 'salesforce', ['accounts', 'contacts', 'contact_roles', 'opportunities', 'cases']),
    ('raw_bottlecrm', 'bottlecrm', ['accounts', 'contacts', 'opportunities', 'tickets']),
    ('raw_files', 'records', [
        'customers', 'accounts', 'contacts', 'opportunities', 'opportunity_stages', 'tickets', 'survey_answers',
        'contracts', 'referrals', 'campaign_spend', 'products', 'experiment_assignments', 'industries',
    ]),
] %}
{%- for entity in entities %}
{%- do raw_tables.update({(source_name, entity): (system, entity, 'valid_from')}) %}
{%- endfor %}
{%- endfor %}

with

loads as (

    select
        *,
        row_number() over (
            partition by source, entity, status = 'replayed', as_of_date <= {{ as_of_date() }}
            order by as_of_date desc, load_seq desc
        ) as newness,
        as_of_date <= {{ as_of_date() }} as is_in_time
    from {{ source('audit', 'loads') }}

),

load_sums as (

    select
        source,
        entity,
        sum(case when is_in_time then rows_new + rows_corrected else 0 end) as rows_landed,
        max(case when is_in_time and status = 'loaded' then as_of_date end) as last_loaded_for,
        max(case when is_in_time and status = 'loaded' then loaded_at end) as last_loaded_at,
        -- What is loaded for later days alone is a source, too.
        coalesce(
            max(case when is_in_time and status <> 'replayed' and newness = 1 then status end),
            max(case when not is_in_time and status <> 'replayed' and newness = 1 then status end)
        ) as last_status
    from loads
    group by source, entity

),

-- The newest row is looked for among those of the last weeks, where an index by time leads to, and only then among all.
newest_rows as (

    {%- for key, place in raw_tables.items() %}
    {% if not loop.first %}union all{% endif %}
    select
        '{{ key[0] }}' as source,
        '{{ key[1] }}' as entity,
        coalesce(
            {%- if place[2] != 'valid_from' %}
            (
                select max(recent.{{ place[2] }})
                from {{ source(place[0], place[1]) }} as recent
                where
                    recent.{{ place[2] }} < {{ as_of_end() }}
                    and recent.{{ place[2] }} >= {{ day_start(days_before(as_of_date(), 34)) }}
            ),
            {%- endif %}
            (
                select max(all_rows.{{ place[2] }})
                from {{ source(place[0], place[1]) }} as all_rows
                where all_rows.{{ place[2] }} < {{ as_of_end() }}
            )
        ) as newest_row_at
    {%- endfor %}

),

limits as (

    {{ policy_rows('freshness_limits', key=['source', 'entity']) }}

),

measured as (

    select
        load_sums.source,
        load_sums.entity,
        load_sums.last_status,
        load_sums.rows_landed,
        load_sums.last_loaded_for,
        load_sums.last_loaded_at,
        newest_rows.newest_row_at,
        {{ local_date('newest_rows.newest_row_at') }} as newest_row_date,
        {{ days_between(local_date('newest_rows.newest_row_at'), as_of_date()) }} as lateness_days,
        {{ days_between('load_sums.last_loaded_for', as_of_date()) }} as load_lateness_days,
        case
            when own_limits.source is not null then own_limits.row_limit_days
            else other_limits.row_limit_days
        end as row_limit_days,
        coalesce(own_limits.load_limit_days, other_limits.load_limit_days) as load_limit_days
    from load_sums
    left join newest_rows on load_sums.source = newest_rows.source and load_sums.entity = newest_rows.entity
    left join limits as own_limits
        on load_sums.source = own_limits.source and load_sums.entity = own_limits.entity
    left join limits as other_limits on other_limits.source = '*' and other_limits.entity = '*'

),

final as (

    select
        '{{ var("run_id") }}' as run_id,
        {{ as_of_date() }} as as_of_date,
        source,
        entity,
        last_status = 'loaded' as is_configured,
        newest_row_date,
        -- Loads date a row of which they know the day alone to the day's first or last moment: no time that happened.
        case
            when newest_row_at = {{ day_start('newest_row_date') }} then null
            when
                {{ hours_between('newest_row_at', day_start(days_before('newest_row_date', -1))) }}
                < 0.0001
                then null
            else newest_row_at
        end as newest_row_at,
        cast(rows_landed as bigint) as rows_landed,
        last_loaded_for,
        last_loaded_at,
        lateness_days,
        load_lateness_days,
        row_limit_days,
        load_limit_days,
        case
            when last_status = 'loaded'
                then
                    last_loaded_for is null
                    or load_lateness_days > load_limit_days
                    or coalesce(lateness_days > row_limit_days, false)
                    or (newest_row_at is null and row_limit_days is not null)
        end as is_late,
        case
            when coalesce(last_status, '') <> 'loaded' then 'absent: not configured'
            when last_loaded_for is null then 'no load up to the date'
            when newest_row_at is null then 'no row up to the date'
            when load_lateness_days > load_limit_days then 'the last load was for ' || last_loaded_for
            when lateness_days > row_limit_days then 'the newest row is ' || lateness_days || ' days old'
        end as reason
    from measured

)

select * from final
