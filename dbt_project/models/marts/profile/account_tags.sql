{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        full_refresh=false,
        indexes=[{'columns': ['as_of_date', 'account_id', 'tag'], 'unique': true}],
        pre_hook="{{ keep_tags_before() }}",
    )
}}

{#- Each derived tag: its name, the column and model that hold it, and the rule behind it. -#}
{%- set tags = [
    ('tier', 'tier', 'account_tiers', 'account_tiers by the policies tier_shares and thresholds'),
    ('dormant', 'is_dormant', 'account_tiers', 'account_tiers by the threshold dormant_days'),
    ('segment', 'segment', 'account_segments', 'account_segments by the policy segments'),
    ('recency', 'recency_band', 'account_rfm', 'account_rfm by the policy rfm_bands'),
    ('frequency', 'frequency_band', 'account_rfm', 'account_rfm by the policy rfm_bands'),
    ('spend', 'monetary_band', 'account_rfm', 'account_rfm by the policy rfm_bands'),
    ('membership', 'membership_level', 'account_memberships', 'account_memberships by the policy membership_levels'),
    ('age', 'age_stage', 'account_lifecycle', 'account_lifecycle by the policy lifecycle_stages'),
    ('value tier', 'value_tier', 'account_value_tiers', 'account_value_tiers by the policy value_matrix'),
    ('growth candidate', 'is_growth_candidate', 'account_value_tiers', 'account_value_tiers by the policy value_matrix'),
    ('relationship', 'relationship_stage', 'account_relationships', 'account_relationships by the policy thresholds'),
    ('journey', 'journey_stage', 'account_journeys', 'account_journeys by the policy thresholds'),
    ('size', 'company_size', 'account_kinds', 'account_kinds by the policy company_sizes'),
    ('industry focus', 'industry_focus', 'account_kinds', 'account_kinds by the policy industry_focuses'),
    ('dedicated manager', 'owes_dedicated_manager', 'account_care', 'account_care by the policy dedicated_manager_rules'),
    ('content', 'content_tag', 'account_content_tags', 'account_content_tags by the policies content_themes and content_formats'),
] %}
{%- set tags_before = tags_before() %}

with

{% if tags_before %}
tags_before as (

    select * from {{ tags_before }}

),
{% endif %}

-- The dates built since the tags were made last, this one among them.
dates as (

    select
        built_dates.as_of_date,
        lead(built_dates.as_of_date) over (order by built_dates.as_of_date) as next_date
    from {{ ref('built_dates') }} as built_dates
    where
        built_dates.as_of_date <= {{ as_of_date() }}
        {% if tags_before %}
        and not exists (
            select 1
            from tags_before
            where tags_before.as_of_date >= built_dates.as_of_date
        )
        {% endif %}

),

tags_on_dates as (

    {%- for tag, column, model, rule in tags %}
    {% if not loop.first %}union all{% endif %}
    select
        as_of_date,
        account_id,
        '{{ tag }}' as tag,
        {{ as_text(column) }} as tag_value
    from {{ ref(model) }}
    where
        as_of_date in (select dates.as_of_date from dates)
        and {{ column }} is not null
    {%- endfor %}

),

tags_now as (

    select * from tags_on_dates
    where as_of_date = {{ as_of_date() }}

),

spells as (

    select
        tags_now.account_id,
        tags_now.tag,
        tags_now.tag_value,
        max(case when tags_on_dates.tag_value <> tags_now.tag_value then tags_on_dates.as_of_date end) as last_other,
        min(tags_on_dates.as_of_date) as first_known
    from tags_now
    inner join tags_on_dates
        on
            tags_now.account_id = tags_on_dates.account_id
            and tags_now.tag = tags_on_dates.tag
    group by tags_now.account_id, tags_now.tag, tags_now.tag_value

),

rules as (

    {%- for tag, column, model, rule in tags %}
    {% if not loop.first %}union all{% endif %}
    select
        '{{ tag }}' as tag,
        '{{ rule }}' as rule
    {%- endfor %}

),

final as (

    select
        {{ as_of_date() }} as as_of_date,
        spells.account_id,
        spells.tag,
        spells.tag_value,
        rules.rule,
        case
            when spells.last_other is not null then changed.next_date
            {%- if tags_before %}
            when previous_tags.set_on is not null then previous_tags.set_on
            {%- endif %}
            else spells.first_known
        end as set_on
    from spells
    inner join rules on spells.tag = rules.tag
    left join dates as changed on spells.last_other = changed.as_of_date
    {%- if tags_before %}
    left join tags_before as previous_tags
        on
            spells.account_id = previous_tags.account_id
            and spells.tag = previous_tags.tag
            and spells.tag_value = previous_tags.tag_value
    {%- endif %}

)

select * from final
