/* log_writer.h - the thread that writes log lines: to stderr, the logfile, syslog.
 *
 * Any thread makes a line (base/log.h); its text is copied into a bounded queue without a lock, and
 * this thread is woken when it sleeps. A full queue drops lines and says later how many. Line
 * format as PgBouncer's: `2026-01-31 12:00:00.000 UTC [PID] LEVEL text`, a newline inside becomes
 * newline and tab. Syslog, and the journal when stderr is one, get the text and a priority instead;
 * DEBUG and NOISE do not go to syslog. */
#ifndef CONTROL_LOG_WRITER_H
#define CONTROL_LOG_WRITER_H

#include "base/log.h"

struct log_options {
    const char *path; /* NULL or "": no file */
    bool to_stderr;
    bool fatal_to_stderr; /* for whoever started us, until we are in the background */
    bool to_syslog;
    const char *syslog_ident;
    int syslog_facility;
};

enum { LOG_LINE_BYTES_MAX = 2 * LOG_TEXT_BYTES_MAX + 128 };

/* Installs the sink and starts the thread. False: the file cannot be opened (said on stderr). */
must_check bool log_writer_start(const struct log_options *options);
/* Opens the file anew under its (new) path; lines before it go to the old one. False: cannot be
 * opened, and the old one is kept. Control's thread. */
must_check bool log_writer_reopen(const struct log_options *options);
/* Waits until all that was logged before is written. Any thread but the writer's. */
void log_writer_flush(void);

/* Makes the line, newline included; returns its length. Pure but for the local time zone. */
size_t log_line_format(char line[LOG_LINE_BYTES_MAX], uint64_t wall_us, int pid,
                       enum log_level level, const char *text, size_t text_bytes);

#endif
