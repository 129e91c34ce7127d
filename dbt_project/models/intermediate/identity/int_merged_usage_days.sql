{{ config(indexes=[{'columns': ['series_id', 'usage_date'], 'unique': true}]) }}

with

merged_spans as (

    select * from {{ ref('int_account_spans') }}
    where usage_series_id like ' %'

),

members as (

    select
        merged_spans.usage_series_id as series_id,
        crosswalk.source_account_id as tenant_id
    from merged_spans
    inner join {{ ref('int_account_crosswalk') }} as crosswalk
        on
            merged_spans.account_id = crosswalk.account_id
            and {{ holds_on('crosswalk', "coalesce(merged_spans.valid_from_date, " ~ beginning() ~ ")") }}
    where crosswalk.source_system = 'behavior'

),

final as (

    select
        members.series_id,
        usage_days.usage_date,
        {%- for count in ['events', 'logins', 'sessions', 'feature_uses', 'core_feature_uses'] %}
        cast(sum(usage_days.{{ count }}) as bigint) as {{ count }},
        {%- endfor %}
        cast(sum(usage_days.active_minutes) as numeric(12, 2)) as active_minutes
    from members
    inner join {{ ref('int_usage_days') }} as usage_days on members.tenant_id = usage_days.account_id
    group by members.series_id, usage_days.usage_date

)

select * from final
order by series_id, usage_date
