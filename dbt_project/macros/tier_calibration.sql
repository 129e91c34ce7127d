{#- Tiers are cut by a yardstick that is made once a quarter and then stands:
      quarter_start   first day of the quarter it is made for
      input_date      the day before, whose values of each account are taken,
      known_until     as they were known calibration_grace_days later; it is in force from that as-of date on
    Between two of them an account moves when it has become better or worse itself, not when others have. -#}


{#- The quarter whose calibration is in force on each of the dates to make, as a query: as_of_date, quarter_start. -#}
{% macro calibration_quarters() -%}
    select
        dates_due.as_of_date,
        {{ quarter_start(days_before('dates_due.as_of_date', 'cast(thresholds.calibration_grace_days as integer) - 1')) }}
            as quarter_start
    from {{ ref('int_dates_due') }} as dates_due
    left join ({{ thresholds_on_dates(['calibration_grace_days'], ref('int_dates_due')) }}) as thresholds
        on dates_due.as_of_date = thresholds.as_of_date
{%- endmacro %}


{#- The calibrations that are still to be made, as a query: quarter_start, input_date, input_until, known_until. Each by the first build
    that needs it and never again, unless `stratum tiers recalibrate` has taken it away. Of several dates of a quarter the
    newest says how many days of grace there are. -#}
{% macro calibrations_due() -%}
    select
        quarters.quarter_start,
        {{ days_before('quarters.quarter_start', 1) }} as input_date,
        {{ day_start('quarters.quarter_start') }} as input_until,
        {{ days_before('quarters.quarter_start', 'cast(1 - quarters.grace_days as integer)') }} as known_until
    from (
        select
            in_force.quarter_start,
            min(thresholds.calibration_grace_days) as grace_days
        from ({{ calibration_quarters() }}) as in_force
        inner join ({{ thresholds_on_dates(['calibration_grace_days'], ref('int_dates_due')) }}) as thresholds
            on in_force.as_of_date = thresholds.as_of_date
        group by in_force.quarter_start
    ) as quarters
    {%- if is_incremental() %}
    where quarters.quarter_start not in (select made.quarter_start from {{ this }} as made)
    {%- endif %}
{%- endmacro %}


{#- Whether there are any: only then are the order lines read. -#}
{% macro calibration_is_due() -%}
    {%- if not execute or not is_incremental() -%}
    {{ return(true) }}
    {%- endif -%}
    {{ return(run_query("select 1 from (" ~ calibrations_due() ~ ") as due limit 1").rows | length > 0) }}
{%- endmacro %}


{#- What each rank weighs and where shares are cut on each of several dates: one row per as_of_date. -#}
{% macro tier_policy(dates) -%}
    select
        shares.as_of_date,
        weights.tier_weight_frequency as weight_frequency,
        weights.tier_weight_monetary as weight_monetary,
        sum(case when shares.tier = 'S' then shares.target_share else 0 end) as share_s,
        sum(case when shares.tier in ('S', 'A') then shares.target_share else 0 end) as share_s_a,
        sum(case when shares.tier in ('S', 'A', 'B') then shares.target_share else 0 end) as share_s_a_b
    from ({{ policy_rows_on_dates('tier_shares', key='tier', dates=dates) }}) as shares
    inner join (
        {{ thresholds_on_dates(['tier_weight_frequency', 'tier_weight_monetary'], dates) }}
    ) as weights on shares.as_of_date = weights.as_of_date
    group by shares.as_of_date, weights.tier_weight_frequency, weights.tier_weight_monetary
{%- endmacro %}


{#- Each account of a date with the number of accounts of the yardstick, of its scope, that order less often and that spend
    less. `accounts` and `yardstick` have as_of_date, scope, account_id, orders_per_quarter and yearly_net_spend. -#}
{% macro ranks_on_yardstick(accounts, yardstick) -%}
    select
        as_of_date,
        account_id,
        {%- for rank, measure in [('frequency_rank', 'orders_per_quarter'), ('monetary_rank', 'yearly_net_spend')] %}
        sum(on_yardstick) over (partition by as_of_date, scope order by {{ measure }})
        - sum(on_yardstick) over (partition by as_of_date, scope, {{ measure }}) as {{ rank }},
        {%- endfor %}
        on_yardstick
    from (
        select
            as_of_date, scope, account_id, orders_per_quarter, yearly_net_spend, 0 as on_yardstick
        from {{ accounts }}
        union all
        select
            as_of_date, scope, account_id, orders_per_quarter, yearly_net_spend, 1 as on_yardstick
        from {{ yardstick }}
    ) as both_sets
{%- endmacro %}


{#- Where the tiers of each scope and date are cut: rank points, spend, recency and id of the last account that is S and of
    the last that is A. `ranked` has as_of_date, scope, account_id, rank_points, yearly_net_spend and days_since_last_order,
    `policy` is what tier_policy gives. -#}
{% macro tier_cuts(ranked, policy) -%}
    select
        as_of_date,
        scope,
        accounts
        {%- for tier in ['s', 'a'] %}
        {%- for column, kind in [
            ('rank_points', 'numeric(24, 4)'),
            ('yearly_net_spend', 'numeric(18, 2)'),
            ('days_since_last_order', 'integer'),
            ('account_id', 'text'),
        ] %},
        cast(max(case when place = last_{{ tier }} then {{ column }} end) as {{ kind }}) as last_{{ tier }}_{{ column }}
        {%- endfor %}
        {%- endfor %}
    from (
        select
            placed.*,
            round(placed.accounts * tier_policy.share_s / tier_policy.share_s_a_b) as last_s,
            round(placed.accounts * tier_policy.share_s_a / tier_policy.share_s_a_b) as last_a
        from (
            select
                *,
                count(*) over (partition by as_of_date, scope) as accounts,
                row_number() over (
                    partition by as_of_date, scope
                    order by rank_points desc, yearly_net_spend desc, days_since_last_order asc, account_id asc
                ) as place
            from {{ ranked }}
        ) as placed
        inner join {{ policy }} as tier_policy on placed.as_of_date = tier_policy.as_of_date
    ) as cut_places
    group by as_of_date, scope, accounts
{%- endmacro %}


{#- Whether an account stands no lower than the last one of a tier, in the order in which tiers are filled. -#}
{% macro reaches(tier, accounts, cuts) -%}
    case
            when {{ accounts }}.rank_points <> {{ cuts }}.last_{{ tier }}_rank_points
                then {{ accounts }}.rank_points > {{ cuts }}.last_{{ tier }}_rank_points
            when {{ accounts }}.yearly_net_spend <> {{ cuts }}.last_{{ tier }}_yearly_net_spend
                then {{ accounts }}.yearly_net_spend > {{ cuts }}.last_{{ tier }}_yearly_net_spend
            when {{ accounts }}.days_since_last_order <> {{ cuts }}.last_{{ tier }}_days_since_last_order
                then {{ accounts }}.days_since_last_order < {{ cuts }}.last_{{ tier }}_days_since_last_order
            else {{ accounts }}.account_id <= {{ cuts }}.last_{{ tier }}_account_id
        end
{%- endmacro %}
