/* notify.h - tells systemd how we are (sd_notify's protocol: one datagram to $NOTIFY_SOCKET).
 * Nothing without it.
 *
 * Control's thread. */
#ifndef CONTROL_NOTIFY_H
#define CONTROL_NOTIFY_H

void notify_ready(void);
void notify_reloading(void);
void notify_stopping(void);
void notify_status(const char *text);

#endif
