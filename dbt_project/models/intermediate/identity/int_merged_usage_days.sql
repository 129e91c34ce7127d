{{ config(indexes=[{'columns': ['series_id', 'usage_date'], 'unique': true}]) }}

with

members as (

    {{ members_of_series('usage_series_id', 'behavior') }}

),

final as (

    select
        members.series_id,
        usage_days.usage_date,
        {%- for count in ['events', 'logins', 'sessions', 'feature_uses', 'core_feature_uses'] %}
        cast(sum(usage_days.{{ count }}) as bigint) as {{ count }},
        {%- endfor %}
        case
            when count(usage_days.core_feature_mask) = count(*) then {{ bit_union('usage_days.core_feature_mask') }}
        end as core_feature_mask,
        cast(sum(usage_days.active_minutes) as numeric(12, 2)) as active_minutes
    from members
    inner join {{ ref('int_usage_days') }} as usage_days on members.source_account_id = usage_days.account_id
    group by members.series_id, usage_days.usage_date

)

select * from final
order by series_id, usage_date
