with

exchange_rates as (

    select * from {{ ref('exchange_rates') }}
    where reporting_currency = '{{ var("reporting_currency") }}'

),

final as (

    select
        currency,
        rate,
        effective_from,
        lead(effective_from) over (partition by currency order by effective_from) as effective_until
    from exchange_rates

)

select * from final
