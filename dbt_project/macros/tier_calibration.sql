{#- Tiers are cut by a yardstick that is made once a quarter and then stands:
      quarter_start   first day of the quarter it is made for
      input_date      the day before, whose values of each account are taken,
      known_until     as they were known calibration_grace_days later; it is in force from that as-of date on
    Between two of them an account moves when it has become better or worse itself, not when others have. -#}


{#- The first day of the quarter whose calibration is in force on the as-of date. Needs a CTE named thresholds. -#}
{% macro calibration_quarter() -%}
    {{ quarter_start(days_before(as_of_date(), 'cast(' ~ threshold('calibration_grace_days') ~ ' as integer) - 1')) }}
{%- endmacro %}


{#- Whether the calibration in force is still to be made: by the first build that needs it and never again, unless
    `stratum tiers recalibrate` has taken it away. -#}
{% macro calibration_is_due() -%}
    {%- if not execute or not is_incremental() -%}
    {{ return(true) }}
    {%- endif -%}
    {%- set made = run_query(
        "with thresholds as (" ~ policy_rows('thresholds', key='name') ~ ") select 1 from " ~ this
        ~ " where quarter_start = " ~ calibration_quarter() ~ " limit 1"
    ) -%}
    {{ return(made.rows | length == 0) }}
{%- endmacro %}


{#- What each rank weighs and where shares are cut, from CTEs with the policy in force: one row. -#}
{% macro tier_policy(thresholds='thresholds', tier_shares='tier_shares') -%}
    select
        {{ threshold('tier_weight_frequency', thresholds) }} as weight_frequency,
        {{ threshold('tier_weight_monetary', thresholds) }} as weight_monetary,
        sum(case when tier = 'S' then target_share else 0 end) as share_s,
        sum(case when tier in ('S', 'A') then target_share else 0 end) as share_s_a,
        sum(case when tier in ('S', 'A', 'B') then target_share else 0 end) as share_s_a_b
    from {{ tier_shares }}
{%- endmacro %}


{#- Each account with the number of accounts of the yardstick, of its scope, that order less often and that spend less.
    `accounts` and `yardstick` have scope, account_id, orders_per_quarter and yearly_net_spend. -#}
{% macro ranks_on_yardstick(accounts, yardstick) -%}
    select
        scope,
        account_id,
        {%- for rank, measure in [('frequency_rank', 'orders_per_quarter'), ('monetary_rank', 'yearly_net_spend')] %}
        sum(on_yardstick) over (partition by scope order by {{ measure }})
        - sum(on_yardstick) over (partition by scope, {{ measure }}) as {{ rank }},
        {%- endfor %}
        on_yardstick
    from (
        select scope, account_id, orders_per_quarter, yearly_net_spend, 0 as on_yardstick from {{ accounts }}
        union all
        select scope, account_id, orders_per_quarter, yearly_net_spend, 1 as on_yardstick from {{ yardstick }}
    ) as both_sets
{%- endmacro %}


{#- Where the tiers of each scope are cut: rank points, spend, recency and id of the last account that is S and of the
    last that is A. `ranked` has scope, account_id, rank_points, yearly_net_spend and days_since_last_order, `policy` is
    what tier_policy gives. -#}
{% macro tier_cuts(ranked, policy) -%}
    select
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
            round(placed.accounts * {{ policy }}.share_s / {{ policy }}.share_s_a_b) as last_s,
            round(placed.accounts * {{ policy }}.share_s_a / {{ policy }}.share_s_a_b) as last_a
        from (
            select
                *,
                count(*) over (partition by scope) as accounts,
                row_number() over (
                    partition by scope
                    order by rank_points desc, yearly_net_spend desc, days_since_last_order asc, account_id asc
                ) as place
            from {{ ranked }}
        ) as placed
        cross join {{ policy }}
    ) as cut_places
    group by scope, accounts
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
