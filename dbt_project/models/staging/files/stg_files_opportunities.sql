with

versions as (

    {{ crm_versions('raw_files', 'opportunities', {
        'opportunity_name': 'opportunity_name',
        'opportunity_type': 'opportunity_type',
        'stage': 'stage',
        'stage_kind': 'stage_kind',
        'channel': 'channel',
        'amount': 'amount',
        'currency': 'currency',
        'expected_close': 'expected_close_on',
        'created_moment': 'created_at',
        'closed_moment': 'closed_at',
    }) }}

),

stages as (

    select * from {{ ref('stg_files_opportunity_stages') }}

),

-- Stages may stand in files of their own: an opportunity is another one on each day on which it or its stage changed.
days as (

    select
        record_id,
        valid_from_date
    from versions
    union
    select
        opportunity_id as record_id,
        valid_from_date
    from stages

),

spans as (

    select
        record_id,
        valid_from_date,
        lead(valid_from_date) over (partition by record_id order by valid_from_date) as valid_until_date
    from days

),

staged as (

    select
        versions.record_id,
        versions.company_record_id,
        versions.is_archived,
        versions.opportunity_name,
        versions.opportunity_type,
        versions.channel,
        versions.amount,
        versions.currency,
        versions.expected_close,
        versions.created_moment,
        versions.closed_moment,
        spans.valid_from_date,
        spans.valid_until_date,
        greatest(versions.load_seq, stages.load_seq) as load_seq,
        greatest(versions.valid_from, stages.valid_from) as valid_from,
        greatest(versions.known_on, stages.known_on) as known_on,
        -- What a closed opportunity says of itself is the end; before that its own stage may be of a later day.
        case
            when versions.closed_moment is not null or stages.stage_name is null then versions.stage
            else stages.stage_name
        end as stage_name,
        case
            when versions.closed_moment is not null or stages.stage_name is null then lower(versions.stage_kind)
            else stages.stage_kind
        end as stage_kind
    from spans
    inner join versions
        on
            spans.record_id = versions.record_id
            and spans.valid_from_date >= versions.valid_from_date
            and (spans.valid_from_date < versions.valid_until_date or versions.valid_until_date is null)
    left join stages
        on
            spans.record_id = stages.opportunity_id
            and spans.valid_from_date >= stages.valid_from_date
            and (spans.valid_from_date < stages.valid_until_date or stages.valid_until_date is null)

),

final as (

    select
        record_id,
        load_seq,
        company_record_id,
        valid_from,
        known_on,
        is_archived,
        opportunity_name,
        stage_name,
        stage_kind,
        -- Each company names its stages as it likes; which of them are lost the files say themselves.
        case when stage_kind = 'lost' then 'CLOSED_LOST' else stage_name end as deal_stage,
        channel,
        cast(amount as numeric(18, 2)) as amount,
        currency,
        coalesce(stage_kind = 'won', false) as is_won,
        coalesce({{ local_date('(' ~ instant_of('closed_moment') ~ ')') }}, cast(expected_close as date)) as close_date,
        opportunity_type,
        {{ local_date('(' ~ instant_of('created_moment') ~ ')') }} as created_date,
        {{ instant_of('created_moment') }} as created_at,
        {{ instant_of('closed_moment') }} as closed_at,
        valid_from_date,
        valid_until_date
    from staged

)

select * from final
