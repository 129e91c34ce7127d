with

dates_due as (

    select * from {{ ref('int_dates_due') }}

),

account_features as (

    select * from {{ ref('account_features') }}
    where as_of_date in (select dates_due.as_of_date from dates_due)

),

account_profiles as (

    select * from {{ ref('account_profiles') }}
    where as_of_date in (select dates_due.as_of_date from dates_due)

),

industries as (

    select
        dates_due.as_of_date,
        versions.industry,
        versions.yearly_growth
    from dates_due
    inner join {{ ref('stg_industries') }} as versions on {{ holds_on('versions', 'dates_due.as_of_date') }}

),

catalogue_categories as (

    select distinct
        dates_due.as_of_date,
        products.product_category
    from dates_due
    inner join {{ ref('stg_products') }} as products on {{ stands_on('products', 'dates_due.as_of_date') }}
    where products.product_category is not null

),

first_orders as (

    select
        product_category,
        min(first_order_date) as first_order_date
    from {{ ref('int_account_categories') }}
    group by product_category

),

-- Where no catalogue is known on the date, what anybody has ordered by it.
ordered_categories as (

    select
        dates_due.as_of_date,
        first_orders.product_category
    from dates_due
    inner join first_orders on dates_due.as_of_date >= first_orders.first_order_date
    where dates_due.as_of_date not in (select catalogue_categories.as_of_date from catalogue_categories)

),

catalogues as (

    select
        as_of_date,
        count(*) as categories
    from (
        select as_of_date from catalogue_categories
        union all
        select as_of_date from ordered_categories
    ) as categories_on_dates
    group by as_of_date

),

bands as (

    {{ policy_rows_on_dates('value_bands', key='metric', dates='dates_due') }}

),

value_band_pairs as (

    {{ policy_rows_on_dates('value_band_pairs', key=['side', 'first_band', 'second_band'], dates='dates_due') }}

),

value_matrix as (

    {{ policy_rows_on_dates('value_matrix', key=['current_value_band', 'potential_value_band'], dates='dates_due') }}

),

value_actions as (

    {{ policy_rows_on_dates('value_actions', key=['value_tier', 'is_growth_candidate'], dates='dates_due') }}

),

measured as (

    select
        account_features.as_of_date,
        account_features.account_id,
        account_features.yearly_net_spend,
        account_features.average_order_value,
        account_profiles.industry,
        industries.yearly_growth as industry_growth,
        -- What the account bought may since have left the catalogue.
        case
            when catalogues.categories - account_features.categories_total >= 0
                then cast(catalogues.categories - account_features.categories_total as integer)
            when catalogues.categories - account_features.categories_total < 0 then 0
        end as cross_sell_room
    from account_features
    left join account_profiles
        on
            account_features.as_of_date = account_profiles.as_of_date
            and account_features.account_id = account_profiles.account_id
    left join industries
        on
            account_profiles.as_of_date = industries.as_of_date
            and account_profiles.industry = industries.industry
    left join catalogues on account_features.as_of_date = catalogues.as_of_date

),

banded as (

    select
        measured.*,
        yearly_arpu_bands.band as yearly_arpu_band,
        average_order_value_bands.band as average_order_value_band,
        industry_growth_bands.band as industry_growth_band,
        cross_sell_room_bands.band as cross_sell_room_band
    from measured
    {{ join_band('yearly_arpu', 'measured', 'yearly_net_spend') }}
    {{ join_band('average_order_value', 'measured', 'average_order_value') }}
    {{ join_band('industry_growth', 'measured', 'industry_growth') }}
    {{ join_band('cross_sell_room', 'measured', 'cross_sell_room') }}

),

paired as (

    select
        banded.*,
        current_pairs.band as current_value_band,
        potential_pairs.band as potential_value_band
    from banded
    left join value_band_pairs as current_pairs
        on
            banded.as_of_date = current_pairs.as_of_date
            and current_pairs.side = 'current'
            and banded.yearly_arpu_band = current_pairs.first_band
            and banded.average_order_value_band = current_pairs.second_band
    left join value_band_pairs as potential_pairs
        on
            banded.as_of_date = potential_pairs.as_of_date
            and potential_pairs.side = 'potential'
            and banded.industry_growth_band = potential_pairs.first_band
            and coalesce(banded.cross_sell_room_band, 'unknown') = potential_pairs.second_band

),

final as (

    select
        paired.as_of_date,
        paired.account_id,
        value_matrix.value_tier,
        paired.current_value_band,
        paired.potential_value_band,
        paired.yearly_arpu_band,
        paired.average_order_value_band,
        paired.industry_growth,
        paired.industry_growth_band,
        paired.cross_sell_room,
        paired.cross_sell_room_band,
        value_matrix.is_growth_candidate,
        value_actions.action as value_action,
        'current value ' || paired.current_value_band
        || case
            when paired.potential_value_band is not null then ', potential value ' || paired.potential_value_band
            when paired.industry is null then '; potential value not known: the CRM names no industry'
            else '; potential value not known: no growth figure of the industry on the date'
        end as value_tier_reason
    from paired
    left join value_matrix
        on
            paired.as_of_date = value_matrix.as_of_date
            and paired.current_value_band = value_matrix.current_value_band
            and coalesce(paired.potential_value_band, 'unknown') = value_matrix.potential_value_band
    left join value_actions
        on
            value_matrix.as_of_date = value_actions.as_of_date
            and value_matrix.value_tier = value_actions.value_tier
            and value_matrix.is_growth_candidate = value_actions.is_growth_candidate

)

select * from final
