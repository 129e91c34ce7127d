{{ config(indexes=[{'columns': ['as_of_date', 'cohort_month'], 'unique': true}]) }}

-- A date's rows are one diagonal of the triangle: what each cohort did in that month. A month to come has no row.
with

kpi_dates as (

    select as_of_date from {{ ref('kpi_dates') }}

),

account_months as (

    select * from {{ ref('account_months') }}
    where as_of_date in (select kpi_dates.as_of_date from kpi_dates)

),

final as (

    select
        as_of_date,
        cohort_month,
        month,
        cast(
            (extract(year from month) - extract(year from cohort_month)) * 12
            + extract(month from month) - extract(month from cohort_month)
            as integer
        ) as months_since,
        count(*) as accounts,
        cast(sum(has_ordered_mtd) as bigint) as accounts_ordered,
        cast(sum(is_active_mtd) as bigint) as accounts_active,
        cast(cast(sum(has_ordered_mtd) as numeric(18, 8)) / count(*) as numeric(9, 6)) as ordered_share,
        cast(cast(sum(is_active_mtd) as numeric(18, 8)) / count(*) as numeric(9, 6)) as active_share
    from account_months
    group by as_of_date, cohort_month, month

)

select * from final
