/* list.h - doubly linked lists whose links lie in the listed objects. No allocation, no ownership.
 *
 * An empty list, and a link in no list, point to themselves: list_remove may be called on both. */
#ifndef BASE_LIST_H
#define BASE_LIST_H

#include "base/assert.h"

struct list {
    struct list *next;
    struct list *prev;
};

static inline void list_init(struct list *list)
{
    list->next = list;
    list->prev = list;
}

static inline bool list_is_empty(const struct list *list)
{
    return list->next == list;
}

static inline void list_insert_between(struct list *prev, struct list *link, struct list *next)
{
    assert(list_is_empty(link));
    link->prev = prev;
    link->next = next;
    prev->next = link;
    next->prev = link;
}

static inline void list_push_front(struct list *list, struct list *link)
{
    list_insert_between(list, link, list->next);
}

static inline void list_push_back(struct list *list, struct list *link)
{
    list_insert_between(list->prev, link, list);
}

static inline void list_remove(struct list *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    list_init(link);
}

static inline struct list *list_front(const struct list *list)
{
    return list_is_empty(list) ? NULL : list->next;
}

static inline struct list *list_back(const struct list *list)
{
    return list_is_empty(list) ? NULL : list->prev;
}

/* Moves all of `from` behind `to`; `from` is empty afterwards. */
static inline void list_append_all(struct list *to, struct list *from)
{
    if (list_is_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    list_init(from);
}

#define list_for_each(link, head)                                                                  \
    for (struct list *link = (head)->next; link != (head); link = link->next)

/* The body may remove `link` itself, nothing else. */
#define list_for_each_safe(link, head)                                                             \
    for (struct list *link = (head)->next, *link##_next = link->next; link != (head);              \
         link = link##_next, link##_next = link->next)

#endif
