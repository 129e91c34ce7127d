{{ config(indexes=[{'columns': ['as_of_date', 'experiment', 'metric', 'tier', 'variant'], 'unique': true}]) }}

{%- set z = '1.959964' %}

-- depends_on: {{ ref('kpi_dates') }}

with

growth_dates as (

    select * from {{ ref('growth_dates') }}

),

units as (

    select * from {{ ref('experiment_units') }}
    where as_of_date in (select growth_dates.as_of_date from growth_dates)

),

experiment_variants as (

    {{ policy_rows_on_dates('experiment_variants', key='experiment', dates='growth_dates') }}

),

holdouts as (

    {{ policy_rows_on_dates('holdouts', key='salt', dates='growth_dates') }}

),

newest_holdouts as (

    select
        as_of_date,
        share,
        row_number() over (partition by as_of_date order by effective_from desc, salt asc) as place
    from holdouts

),

experiment_metrics as (

    {{ policy_rows_on_dates('experiment_metrics', key='experiment', dates='growth_dates') }}

),

limits as (

    {{ policy_rows_on_dates('chi_square_limits', key='degrees_of_freedom', dates='growth_dates') }}

),

-- Which variants there are: those the policy expects, and those that were seen.
expected as (

    select
        as_of_date,
        experiment,
        variant,
        is_control,
        expected_share
    from experiment_variants
    union all
    select
        as_of_date,
        'holdout' as experiment,
        'held out' as variant,
        true as is_control,
        share as expected_share
    from newest_holdouts
    where place = 1
    union all
    select
        as_of_date,
        'holdout' as experiment,
        'acted on' as variant,
        false as is_control,
        1 - share as expected_share
    from newest_holdouts
    where place = 1

),

assigned as (

    select
        as_of_date,
        experiment,
        variant,
        count(distinct account_id) as units
    from units
    where is_crossed = 0
    group by as_of_date, experiment, variant

),

experiments as (

    select distinct
        as_of_date,
        experiment
    from assigned

),

variant_names as (

    select
        as_of_date,
        experiment,
        variant
    from assigned
    union
    select
        expected.as_of_date,
        expected.experiment,
        expected.variant
    from expected
    inner join experiments
        on expected.as_of_date = experiments.as_of_date and expected.experiment = experiments.experiment

),

named_experiments as (

    select distinct
        as_of_date,
        experiment
    from expected

),

splits as (

    select
        variant_names.as_of_date,
        variant_names.experiment,
        variant_names.variant,
        coalesce(
            expected.is_control, named_experiments.experiment is null and variant_names.variant = 'control'
        ) as is_control,
        coalesce(assigned.units, 0) as units,
        -- A variant that the policy of its experiment does not know should hold nobody.
        case
            when named_experiments.experiment is not null then coalesce(expected.expected_share, 0)
            else cast(1 as numeric) / count(*) over (partition by variant_names.as_of_date, variant_names.experiment)
        end as expected_share
    from variant_names
    left join expected
        on
            variant_names.as_of_date = expected.as_of_date
            and variant_names.experiment = expected.experiment
            and variant_names.variant = expected.variant
    left join named_experiments
        on
            variant_names.as_of_date = named_experiments.as_of_date
            and variant_names.experiment = named_experiments.experiment
    left join assigned
        on
            variant_names.as_of_date = assigned.as_of_date
            and variant_names.experiment = assigned.experiment
            and variant_names.variant = assigned.variant

),

shares as (

    select
        *,
        sum(units) over (partition by as_of_date, experiment) as all_units
    from splits

),

ratio_checks as (

    select
        shares.as_of_date,
        shares.experiment,
        count(case when shares.expected_share > 0 then 1 end) - 1 as degrees_of_freedom,
        max(case when shares.expected_share = 0 and shares.units > 0 then 1 else 0 end) as has_unexpected,
        sum(
            case
                when shares.expected_share > 0
                    then
                        power(shares.units - shares.all_units * shares.expected_share, 2)
                        / (shares.all_units * shares.expected_share)
            end
        ) as chi_square
    from shares
    group by shares.as_of_date, shares.experiment

),

by_tier as (

    select
        *,
        'all' as readout_tier
    from units
    where is_crossed = 0
    union all
    select
        *,
        tier as readout_tier
    from units
    where is_crossed = 0

),

variant_sums as (

    select
        as_of_date,
        experiment,
        metric,
        measure,
        readout_tier as tier,
        variant,
        max(window_days) as window_days,
        count(case when is_window_over = 1 then 1 end) as units,
        count(case when is_window_over = 0 then 1 end) as units_pending,
        coalesce(sum(conversions), 0) as conversions,
        coalesce(sum(tries), 0) as tries,
        coalesce(sum(conversions * conversions), 0) as conversions_squared,
        coalesce(sum(conversions * tries), 0) as conversions_by_tries,
        coalesce(sum(tries * tries), 0) as tries_squared
    from by_tier
    group by as_of_date, experiment, metric, measure, readout_tier, variant

),

rates as (

    select
        *,
        cast(conversions as numeric) / nullif(tries, 0) as rate
    from variant_sums

),

-- Wilson's interval of a share of units; the variance of a ratio of sums over units (delta method).
estimates as (

    select
        *,
        case
            when measure in ('has_ordered', 'is_retained') and units > 0
                then (rate + {{ z }} * {{ z }} / (2 * units)) / (1 + {{ z }} * {{ z }} / units)
        end as wilson_centre,
        case
            when measure in ('has_ordered', 'is_retained') and units > 0
                then
                    sqrt(rate * (1 - rate) / units + {{ z }} * {{ z }} / (4 * cast(units as numeric) * units))
                    * {{ z }} / (1 + {{ z }} * {{ z }} / units)
        end as wilson_reach,
        case
            when measure not in ('has_ordered', 'is_retained') and units > 1 and tries > 0
                then
                    cast(units as numeric) / (units - 1)
                    * greatest(conversions_squared - 2 * rate * conversions_by_tries + rate * rate * tries_squared, 0)
                    / (cast(tries as numeric) * tries)
        end as variance
    from rates

),

compared as (

    select
        variants.as_of_date,
        variants.experiment,
        variants.metric,
        variants.measure,
        variants.tier,
        variants.variant,
        coalesce(shares.is_control, false) as is_control,
        variants.window_days,
        variants.units,
        variants.units_pending,
        variants.conversions,
        variants.tries,
        variants.rate,
        controls.variant as control_variant,
        controls.rate as control_rate,
        variants.rate - controls.rate as difference,
        case
            when variants.measure in ('has_ordered', 'is_retained') then 'newcombe'
            else 'delta'
        end as interval_method,
        -- Newcombe's hybrid score interval, from both Wilson intervals.
        case
            when variants.measure in ('has_ordered', 'is_retained')
                then sqrt(
                    power(variants.rate - (variants.wilson_centre - variants.wilson_reach), 2)
                    + power(controls.wilson_centre + controls.wilson_reach - controls.rate, 2)
                )
            else {{ z }} * sqrt(variants.variance + controls.variance)
        end as reach_below,
        case
            when variants.measure in ('has_ordered', 'is_retained')
                then sqrt(
                    power(variants.wilson_centre + variants.wilson_reach - variants.rate, 2)
                    + power(controls.rate - (controls.wilson_centre - controls.wilson_reach), 2)
                )
            else {{ z }} * sqrt(variants.variance + controls.variance)
        end as reach_above,
        case
            when variants.units = 0 then 'the window of no unit is over'
            when variants.tries = 0 then 'no session is known of its units'
            when controls.variant is null then 'no control is known'
            when controls.units = 0 or controls.tries = 0 then 'nothing is known of the control'
        end as untold_reason,
        case
            when least(variants.units, controls.units) < growth_dates.experiment_min_units
                then
                    'too few units for an interval: ' || least(variants.units, controls.units)
                    || ' in the smaller group, and it takes ' || growth_dates.experiment_min_units
        end as too_few_reason
    from estimates as variants
    inner join growth_dates on variants.as_of_date = growth_dates.as_of_date
    left join shares
        on
            variants.as_of_date = shares.as_of_date
            and variants.experiment = shares.experiment
            and variants.variant = shares.variant
    left join shares as control_shares
        on
            variants.as_of_date = control_shares.as_of_date
            and variants.experiment = control_shares.experiment
            and control_shares.is_control
    left join estimates as controls
        on
            variants.as_of_date = controls.as_of_date
            and variants.experiment = controls.experiment
            and variants.metric = controls.metric
            and variants.tier = controls.tier
            and control_shares.variant = controls.variant

),

read_out as (

    select
        compared.as_of_date,
        compared.experiment,
        compared.metric,
        compared.tier,
        compared.variant,
        compared.is_control,
        coalesce(own_metrics.denominator, common_metrics.denominator) as denominator,
        coalesce(own_metrics.better, common_metrics.better) as better,
        compared.window_days,
        compared.units,
        compared.units_pending,
        cast(compared.conversions as bigint) as conversions,
        cast(compared.tries as bigint) as tries,
        cast(compared.rate as numeric(18, 6)) as rate,
        case when not compared.is_control then cast(compared.difference as numeric(18, 6)) end as difference,
        case
            when not compared.is_control and coalesce(compared.untold_reason, compared.too_few_reason) is null
                then cast(compared.difference - compared.reach_below as numeric(18, 6))
        end as difference_from,
        case
            when not compared.is_control and coalesce(compared.untold_reason, compared.too_few_reason) is null
                then cast(compared.difference + compared.reach_above as numeric(18, 6))
        end as difference_to,
        compared.interval_method,
        case when not compared.is_control then coalesce(compared.untold_reason, compared.too_few_reason) end
            as no_interval_reason,
        compared.untold_reason is null as is_told,
        cast(ratio_checks.chi_square as numeric(18, 4)) as split_chi_square,
        limits.critical_value as split_limit,
        case
            when ratio_checks.degrees_of_freedom > 0
                then ratio_checks.chi_square <= limits.critical_value and ratio_checks.has_unexpected = 0
        end as is_split_as_expected
    from compared
    left join ratio_checks
        on
            compared.as_of_date = ratio_checks.as_of_date
            and compared.experiment = ratio_checks.experiment
    -- An experiment with metrics of its own is read by these alone.
    left join experiment_metrics as own_metrics
        on
            compared.as_of_date = own_metrics.as_of_date
            and compared.experiment = own_metrics.experiment
            and compared.metric = own_metrics.metric
    left join experiment_metrics as common_metrics
        on
            compared.as_of_date = common_metrics.as_of_date
            and common_metrics.experiment = '*'
            and compared.metric = common_metrics.metric
    left join limits
        on
            ratio_checks.as_of_date = limits.as_of_date
            and ratio_checks.degrees_of_freedom = limits.degrees_of_freedom

),

final as (

    select
        as_of_date,
        experiment,
        metric,
        tier,
        variant,
        is_control,
        denominator,
        better,
        window_days,
        units,
        units_pending,
        conversions,
        tries,
        rate,
        difference,
        difference_from,
        difference_to,
        interval_method,
        no_interval_reason,
        split_chi_square,
        split_limit,
        is_split_as_expected,
        case
            when is_control then null
            when not is_split_as_expected then 'split does not hold'
            when not is_told then 'nothing to read yet'
            when no_interval_reason is not null then 'too few units'
            when (better = 'higher' and difference_from > 0) or (better = 'lower' and difference_to < 0) then 'better'
            when (better = 'higher' and difference_to < 0) or (better = 'lower' and difference_from > 0) then 'worse'
            else 'no difference shown'
        end as reading
    from read_out

)

select * from final
