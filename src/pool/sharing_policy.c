/* Slots come in pairs: one with the limit `base`, one with a step more or less. Which of the two is the first
 * follows from the pair's number as if by chance, so that a load that changes at a rhythm of its own
 * does not favour either. The gain of a pair is a number between -2 and 2; its mean and variance over the pairs
 * say whether a step is worth it. */
#include "pool/sharing_policy.h"

#include "base/assert.h"

#include <string.h>

enum {
    LIMIT_FIRST = 2,
    /* One busy server is one that may lose its core to somebody else, and everybody waits. */
    LIMIT_MIN = 2,

    /* 16 ms: some hundred answers of a busy pool, and five pairs in a sixth of a second. */
    SLOT_BITS_MIN = 14,
    SLOT_BITS_MAX = 20,
    ANSWERS_MIN = 40, /* in a slot, or it says nothing; slots become longer */
    ANSWERS_MANY = 400,

    PAIRS_MIN = 2,
    PAIRS_REMEMBERED = 32,
    PAIRS_SETTLED = 16, /* so many without a decision: a quarter of the pairs are trials */

    /* So many that are far from what so many others have told outweigh them; a single one is noise. */
    PAIRS_TRUSTED = 4,
    DOUBTS_MAX = 2,

    ANSWERS_OF_WAIT = 64, /* their mean is what clients wait now */

    TRIED_US = 2 * 1000 * 1000,
};

/* A step up must shorten the clients' time by this part of the step: a third more servers by 4 %. */
static const float gain_to_raise = 0.12f;
/* A step down may lengthen it by that. Between the two the limit stays. */
static const float loss_to_lower = 0.04f;
/* A decision is made at so many standard errors. Before it was measured, the variance is taken for that of slots
 * that differ by 6 %, with the weight of four pairs. */
static const float errors_to_raise = 2.0f, errors_to_lower = 2.0f;
static const float variance_usual = 0.06f * 0.06f;
static const float variance_usual_pairs = 4;

/* A pair that is so many standard deviations away is not of their kind. */
static const float errors_to_doubt = 3.0f;

static const float gain_bad = 0.1f;

/* The clients' time has changed by that factor: another load. */
static const float change = 1.2f;

static unsigned more(const struct sharing_policy *policy)
{
    return MIN(policy->base + MAX(policy->base / 3, 1), policy->ceiling);
}

static unsigned fewer(const struct sharing_policy *policy)
{
    return MAX(policy->base - MAX(policy->base / 4, 1), MIN(LIMIT_MIN, policy->ceiling));
}

static unsigned limit_of_trial(const struct sharing_policy *policy,
                               enum sharing_direction direction)
{
    unsigned up = more(policy), down = fewer(policy);

    switch (direction) {
    case SHARING_MORE:
        return up;
    case SHARING_FEWER:
        return down;
    case SHARING_DOUBLE:
        return MAX(up, MIN(policy->base * 2, policy->ceiling));
    default:
        return MIN(down, MAX(policy->base / 3, LIMIT_MIN));
    }
}

static bool is_settled(const struct sharing_policy *policy)
{
    return (policy->trials[SHARING_MORE].count >= PAIRS_SETTLED || more(policy) == policy->base) &&
           (policy->trials[SHARING_FEWER].count >= PAIRS_SETTLED || fewer(policy) == policy->base);
}

/* What a pair tries: a step, or seldom a jump, for what is best may lie beyond what is worse. Once the steps are
 * known, trials are rare, and those that are known to be bad are rarer: they are what a p99.9 sees. */
static bool pair_is_trial(const struct sharing_policy *policy, uint64_t pair,
                          enum sharing_direction *direction)
{
    bool is_up = (pair & 1) != 0, is_bad;
    uint64_t turn = pair >> 1;

    if (turn % 4 == 1)
        *direction = is_up ? SHARING_DOUBLE : SHARING_THIRD;
    else
        *direction = is_up ? SHARING_MORE : SHARING_FEWER;
    if (!is_settled(policy))
        return true;
    is_bad =
        policy->trials[*direction].count > PAIRS_MIN && policy->trials[*direction].gain < -gain_bad;
    if (turn % 4 == 1)
        return turn % (is_bad ? 256 : 16) == 1;
    return turn % (is_bad ? 16 : 4) == 0;
}

static unsigned limit_of_slot(const struct sharing_policy *policy, uint64_t slot)
{
    uint64_t pair = slot >> 1;
    bool trial_first = pair * UINT64_C(0x9e3779b97f4a7c15) >> 63;
    enum sharing_direction direction;

    if ((slot & 1) == trial_first || !pair_is_trial(policy, pair, &direction))
        return policy->base;
    return limit_of_trial(policy, direction);
}

static void base_set(struct sharing_policy *policy, unsigned base)
{
    policy->base = base;
    memset(policy->trials, 0, sizeof(policy->trials));
    policy->usual_us = 0;
}

static float variance(const struct sharing_trial *trial)
{
    float count = (float)trial->count;

    return (trial->variance * count + variance_usual * variance_usual_pairs) /
           (count + variance_usual_pairs);
}

static void trial_note(struct sharing_policy *policy, struct sharing_trial *trial, float gain)
{
    float difference = gain - trial->gain, weight;

    /* What several in a row contradict is no longer so: the load is another one. */
    if (trial->count >= PAIRS_TRUSTED &&
        difference * difference > errors_to_doubt * errors_to_doubt * variance(trial)) {
        trial->doubts++;
        if (trial->doubts < DOUBTS_MAX)
            return;
        base_set(policy, policy->base);
        policy->changed_count++;
        difference = gain;
    }
    trial->doubts = 0;
    trial->count = MIN(trial->count + 1, PAIRS_REMEMBERED);
    weight = 1.0f / (float)trial->count;
    trial->gain += weight * difference;
    trial->variance = (1 - weight) * (trial->variance + weight * difference * difference);
}

/* Is the mean above `least`, beyond doubt? */
static bool trial_proves(const struct sharing_trial *trial, float least, float errors_least)
{
    float above = trial->gain - least, errors;

    if (trial->count < PAIRS_MIN || above <= 0)
        return false;
    errors = variance(trial) / (float)(trial->count - 1);
    return above * above > errors_least * errors_least * errors;
}

static float step(unsigned low, unsigned high)
{
    return 2.0f * (float)(high - low) / (float)(high + low);
}

static void decide(struct sharing_policy *policy, enum sharing_direction direction)
{
    const struct sharing_trial *trial = &policy->trials[direction];
    unsigned base = policy->base, limit = limit_of_trial(policy, direction);

    if (limit > base && trial_proves(trial, gain_to_raise * step(base, limit), errors_to_raise)) {
        base_set(policy, limit);
        policy->raised_count++;
    } else if (limit < base &&
               trial_proves(trial, -loss_to_lower * step(limit, base), errors_to_lower)) {
        base_set(policy, limit);
        policy->lowered_count++;
    }
}

static float client_time_us(const struct sharing_slot *slot)
{
    return (float)slot->queued_us / (float)slot->answers;
}

static float rate(const struct sharing_slot *slot)
{
    return (float)slot->answers / (float)slot->time_us;
}

/* Near the logarithm of a / b. */
static float difference(float a, float b)
{
    return a + b > 0 ? 2 * (a - b) / (a + b) : 0;
}

static void pair_end(struct sharing_policy *policy, const struct sharing_slot *a,
                     const struct sharing_slot *b)
{
    const struct sharing_slot *trial = a->limit == policy->base ? b : a;
    const struct sharing_slot *base = trial == a ? b : a;
    enum sharing_direction direction;
    float shorter, faster;

    if (!pair_is_trial(policy, policy->slot >> 1, &direction) || base->limit != policy->base ||
        trial->limit == base->limit || trial->limit != limit_of_trial(policy, direction))
        return;
    shorter = difference(client_time_us(base), client_time_us(trial));
    faster = difference(rate(trial), rate(base));
    trial_note(policy, &policy->trials[direction], (shorter + faster) / 2);
    decide(policy, direction);
}

/* A load that has become another one makes old trials worthless. */
static void notice_change(struct sharing_policy *policy, const struct sharing_slot *slot)
{
    float now_us = client_time_us(slot);

    if (policy->usual_us == 0) {
        policy->usual_us = now_us;
        policy->time_us = now_us;
    }
    policy->time_us += (now_us - policy->time_us) / 8;
    policy->usual_us += (policy->time_us - policy->usual_us) / 32;
    if (policy->time_us > change * policy->usual_us ||
        policy->time_us * change < policy->usual_us) {
        base_set(policy, policy->base);
        policy->changed_count++;
    }
}

static bool slot_says_something(const struct sharing_policy *policy,
                                const struct sharing_slot *slot)
{
    return slot->answers >= ANSWERS_MIN && slot->time_us >= UINT64_C(1) << (policy->slot_bits - 1);
}

static void slot_begin(struct sharing_policy *policy, uint64_t now_us)
{
    uint64_t slot = now_us >> policy->slot_bits;

    policy->slot = slot;
    policy->measured_from_us =
        (slot << policy->slot_bits) + (UINT64_C(1) << (policy->slot_bits - 2));
    policy->limit = limit_of_slot(policy, slot);
    policy->current = (struct sharing_slot){.limit = policy->limit};
}

static void slot_end(struct sharing_policy *policy, uint64_t now_us)
{
    const struct sharing_slot ended = policy->current;
    bool is_second = (policy->slot & 1) != 0,
         is_next = now_us >> policy->slot_bits == policy->slot + 1;

    if (slot_says_something(policy, &ended)) {
        policy->tried_until_us = now_us + TRIED_US;
        if (ended.limit == policy->base) {
            policy->last = ended;
            notice_change(policy, &ended);
        }
        if (is_second && policy->first.answers > 0)
            pair_end(policy, &policy->first, &ended);
        policy->first = ended;
        if (is_second || !is_next)
            policy->first.answers = 0;
        if (is_second && ended.answers > ANSWERS_MANY && policy->slot_bits > SLOT_BITS_MIN)
            policy->slot_bits--;
    } else {
        policy->first.answers = 0;
        policy->usual_us = 0;
        if (is_next && ended.answers > 0 && ended.answers < ANSWERS_MIN &&
            policy->slot_bits < SLOT_BITS_MAX)
            policy->slot_bits++;
    }
    slot_begin(policy, now_us);
}

void sharing_policy_set(struct sharing_policy *policy, int setting, unsigned ceiling)
{
    assert(ceiling >= 1);
    policy->ceiling = ceiling;
    if (policy->slot_bits == 0)
        policy->slot_bits = SLOT_BITS_MIN;
    if (policy->base == 0)
        base_set(policy, MIN(LIMIT_FIRST, ceiling));
    if (policy->base > ceiling)
        base_set(policy, ceiling);
    if (policy->base < MIN(LIMIT_MIN, ceiling))
        base_set(policy, MIN(LIMIT_MIN, ceiling));
    policy->setting = setting;
    if (setting == SHARING_AUTO)
        policy->limit = policy->base;
    else
        policy->limit = setting == SHARING_OFF ? ceiling : MIN((unsigned)setting, ceiling);
}

void sharing_policy_answered(struct sharing_policy *policy, uint64_t now_us, uint64_t took_us,
                             float floor_us, unsigned busy, unsigned queued)
{
    struct sharing_slot *slot = &policy->current;
    uint64_t passed_us =
        policy->now_us == 0 || now_us < policy->now_us ? 0 : now_us - policy->now_us;
    /* Time in which nobody was here does not count: then nothing waits, and the present ones came when they
     * were sent. */
    uint64_t present_us = queued == busy ? MIN(passed_us, took_us) : passed_us;
    float wait_us = (float)(MIN(present_us, US_PER_S / 10) * queued);

    policy->wait_us += (wait_us - policy->wait_us) / ANSWERS_OF_WAIT;
    policy->now_us = MAX(policy->now_us, now_us);
    if (policy->setting != SHARING_AUTO)
        return;
    if (now_us >> policy->slot_bits != policy->slot)
        slot_end(policy, now_us);
    if (now_us >= policy->measured_from_us) {
        uint64_t measured_us = now_us - policy->measured_from_us;

        passed_us = MIN(passed_us, measured_us);
        present_us = MIN(present_us, measured_us);
        slot->time_us += passed_us;
        slot->queued_us += present_us * queued;
        slot->busy_us += present_us * busy;
        slot->took_us += took_us;
        slot->floor_us += floor_us;
        slot->answers++;
    }
}
