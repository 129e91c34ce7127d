{%- set of_newcomers = {'industry': 'industry', 'cohort_month': 'cohort'} %}
{#- A cohort is measured when the windows of all its accounts are over, other groups by the accounts whose own is. -#}
{%- set censored %}
    case when is_censored then 'the window of the cohort is not over: it ends on ' || {{ as_text('window_end_date') }} end
{%- endset %}
{%- set none_over = "'no account was created in the CRM in the last twelve months whose window is over'" %}

with

kpi_dates as (

    select as_of_date from {{ ref('kpi_dates') }}

),

account_newcomers as (

    select
        *,
        {{ as_text('cohort_month') }} as cohort
    from {{ ref('account_newcomers') }}
    where as_of_date in (select kpi_dates.as_of_date from kpi_dates)

),

sums as (

    {{ sums_by_dimension('kpi_dates', 'account_newcomers', {
        'window_end_date': 'max(fact.cohort_window_end_date)',
        'accounts_over': 'sum(fact.is_window_over)',
        'live': 'sum(fact.is_window_over * fact.went_live)',
        'days_to_live': 'sum(fact.is_window_over * fact.went_live * fact.days_to_go_live)',
        'sold': 'sum(fact.is_window_over * fact.made_first_sale)',
        'days_to_sale': 'sum(fact.is_window_over * fact.made_first_sale * fact.days_to_first_sale)',
        'selling': 'sum(fact.is_window_over * fact.is_selling)',
    }, of_newcomers) }}

),

judged as (

    select
        *,
        dimension = 'cohort_month' and window_end_date > as_of_date as is_censored
    from sums

),

measured as (

    select
        as_of_date,
        dimension,
        dimension_value,
        window_end_date,
        {%- for column in ['accounts_over', 'live', 'days_to_live', 'sold', 'days_to_sale', 'selling'] %}
        case when not is_censored then {{ column }} end as {{ column }},
        {%- endfor %}
        is_censored
    from judged

),

final as (

    {{ kpi_rows('measured', {
        'go_live_rate': {
            'numerator': 'live',
            'denominator': 'accounts_over',
            'reason': 'coalesce(' ~ censored ~ ", case when accounts_over > 0 then"
                ~ " 'no behavior event is known up to the date' else " ~ none_over ~ ' end)',
        },
        'go_live_days': {
            'numerator': 'days_to_live',
            'denominator': 'live',
            'reason': 'coalesce(' ~ censored ~ ", case when accounts_over > 0 then"
                ~ " 'none of them went live within the window, or no behavior event is known' else "
                ~ none_over ~ ' end)',
        },
        'first_sale_rate': {
            'numerator': 'sold',
            'denominator': 'accounts_over',
            'reason': 'coalesce(' ~ censored ~ ', ' ~ none_over ~ ')',
        },
        'first_sale_days': {
            'numerator': 'days_to_sale',
            'denominator': 'sold',
            'reason': 'coalesce(' ~ censored ~ ", case when accounts_over > 0 then"
                ~ " 'none of them ordered within the window' else " ~ none_over ~ ' end)',
        },
        'active_selling_rate': {
            'numerator': 'selling',
            'denominator': 'accounts_over',
            'reason': 'coalesce(' ~ censored ~ ', ' ~ none_over ~ ')',
        },
    }) }}

)

select * from final
