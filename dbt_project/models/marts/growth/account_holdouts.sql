-- depends_on: {{ ref('kpi_dates') }}

with

growth_dates as (

    select * from {{ ref('growth_dates') }}

),

holdouts as (

    {{ policy_rows_on_dates('holdouts', key='salt', dates='growth_dates') }}

),

-- Of several salts the newest draws the group.
in_force as (

    select
        *,
        row_number() over (partition by as_of_date order by effective_from desc, salt asc) as place
    from holdouts

),

accounts as (

    select
        account_profiles.as_of_date,
        account_profiles.account_id,
        in_force.salt,
        in_force.share,
        {{ hash_share("in_force.salt || account_profiles.account_id") }} as lot
    from {{ ref('account_profiles') }} as account_profiles
    inner join in_force
        on
            account_profiles.as_of_date = in_force.as_of_date
            and in_force.place = 1

),

drawn as (

    select
        accounts.as_of_date,
        accounts.account_id,
        min(holdouts.effective_from) as since
    from accounts
    inner join {{ ref('holdouts') }} as holdouts
        on
            accounts.salt = holdouts.salt
            and accounts.as_of_date >= holdouts.effective_from
            and accounts.lot < holdouts.share
    where accounts.lot < accounts.share
    group by accounts.as_of_date, accounts.account_id

),

final as (

    select
        accounts.as_of_date,
        accounts.account_id,
        drawn.account_id is not null as is_held_out,
        drawn.since
    from accounts
    left join drawn
        on
            accounts.as_of_date = drawn.as_of_date
            and accounts.account_id = drawn.account_id

)

select * from final
