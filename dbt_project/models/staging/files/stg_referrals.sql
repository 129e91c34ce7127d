with

versions as (

    {{ file_versions('referrals', ['referred_account_key', 'referred_at'], owner='account_key') }}

),

final as (

    select
        record_id as referral_id,
        load_seq,
        account_key,
        referred_account_key,
        valid_from,
        known_on,
        is_archived,
        {{ instant_of('referred_at') }} as referred_at,
        {{ local_date('(' ~ instant_of('referred_at') ~ ')') }} as referred_date,
        is_latest,
        valid_from_date,
        valid_until_date
    from versions

)

select * from final
