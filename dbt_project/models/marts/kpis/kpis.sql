{%- set families = [
    ref('kpi_retention'),
    ref('kpi_value'),
    ref('kpi_repurchase'),
    ref('kpi_newcomers'),
    ref('kpi_acquisition'),
    ref('kpi_satisfaction'),
    ref('kpi_referrals'),
    ref('kpi_purchase_flow'),
    ref('kpi_contracts'),
    ref('kpi_churn_causes'),
] %}

with

kpi_dates as (

    select as_of_date from {{ ref('kpi_dates') }}

),

kpi_definitions as (

    {{ policy_rows_on_dates('kpi_definitions', key='kpi', dates='kpi_dates') }}

),

-- Where the company's orders begin: a sum of a year is one once there is a year of them.
data_begins as (

    select
        as_of_date,
        min(first_order_date) as data_begin
    from {{ ref('account_features') }}
    where as_of_date in (select kpi_dates.as_of_date from kpi_dates)
    group by as_of_date

),

measured as (

    {%- for family in families %}
    {% if not loop.first %}union all{% endif %}
    select
        as_of_date,
        kpi,
        dimension,
        dimension_value,
        numerator,
        denominator,
        value,
        no_value_reason
    from {{ family }}
    where as_of_date in (select kpi_dates.as_of_date from kpi_dates)
    {%- endfor %}

),

-- Why a value that could be counted is not told: it would be read as more than it is.
defined as (

    select
        measured.*,
        kpi_definitions.unit,
        case
            when
                {{ days_between('data_begins.data_begin', 'measured.as_of_date') }} + 1 < kpi_definitions.needs_days
                then
                    'data begin on ' || data_begins.data_begin || ', and it takes ' || kpi_definitions.needs_days
                    || ' days of them'
            when kpi_definitions.needs_whole_month and not {{ is_month_end('measured.as_of_date') }}
                then 'the month is not over'
        end as too_early_reason
    from measured
    left join kpi_definitions
        on
            measured.as_of_date = kpi_definitions.as_of_date
            and measured.kpi = kpi_definitions.kpi
    left join data_begins on measured.as_of_date = data_begins.as_of_date

),

final as (

    select
        as_of_date,
        {{ month_start('as_of_date') }} as month,
        kpi,
        dimension,
        dimension_value,
        numerator,
        denominator,
        case when too_early_reason is null then value end as value,
        unit,
        coalesce(too_early_reason, no_value_reason) as no_value_reason
    from defined

)

select * from final
