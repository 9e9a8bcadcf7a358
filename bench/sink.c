/* An SMTP server that takes every mail, waits D ms after its end before it says so, and throws it away.
 *
 * It listens on a free port of 127.0.0.1 and prints it. Commands come on stdin, a line each: `counts` prints them as one JSON object,
 * `delay MS` changes the wait, `reset` sets the counts to zero. When stdin closes, it ends.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define MOST_CLIENTS 65536
#define LINE 4096

/* One connection. `end` counts how much of CR LF . CR LF was seen; only commands are kept, mails are not. */
struct client {
    int fd;
    bool in_data, quit;
    unsigned end;
    uint64_t due; /* when its mail is confirmed; 0: none is waiting */
    size_t size;
    char line[LINE];
};

static struct client *clients[MOST_CLIENTS];
static int epoll, timer, listener;
static int highest; /* the highest descriptor that a client had */
static uint64_t delay_ns;
static struct {
    unsigned long connections, mails, bytes, unknown, waiting, peak;
} counts;

static _Noreturn void die(const char *what) {
    fprintf(stderr, "sink: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void watch(int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        die("epoll_ctl");
}

static void say(struct client *client, const char *text) {
    /* An answer is a few bytes to a client that waits for it, so it always fits. */
    if (send(client->fd, text, strlen(text), MSG_NOSIGNAL) < 0 && errno != EPIPE && errno != ECONNRESET)
        die("send");
}

static void client_close(struct client *client) {
    if (client->due)
        counts.waiting--;
    clients[client->fd] = NULL;
    close(client->fd);
    free(client);
}

static void timer_arm(void) {
    uint64_t next = 0;
    for (int fd = 0; fd <= highest; fd++)
        if (clients[fd] && clients[fd]->due && (!next || clients[fd]->due < next))
            next = clients[fd]->due;
    struct itimerspec setting = {.it_value = {.tv_sec = (time_t)(next / 1000000000u), .tv_nsec = (long)(next % 1000000000u)}};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &setting, NULL);
}

static void mail_ended(struct client *client) {
    client->in_data = false;
    client->due = now_ns() + delay_ns;
    counts.waiting++;
    if (counts.waiting > counts.peak)
        counts.peak = counts.waiting;
}

static void confirm_due(void) {
    uint64_t now = now_ns(), ignored;
    (void)!read(timer, &ignored, sizeof ignored);
    for (int fd = 0; fd <= highest; fd++) {
        if (!clients[fd] || !clients[fd]->due || clients[fd]->due > now)
            continue;
        clients[fd]->due = 0;
        counts.waiting--;
        counts.mails++;
        say(clients[fd], "250 taken\r\n");
    }
}

static bool is(const char *line, const char *verb) {
    return strncasecmp(line, verb, strlen(verb)) == 0;
}

static void command(struct client *client, const char *line) {
    if (is(line, "EHLO"))
        say(client, "250-sink\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n");
    else if (is(line, "DATA")) {
        client->in_data = true;
        client->end = 2; /* the lone dot may be the first line */
        say(client, "354 go on\r\n");
    } else if (is(line, "QUIT")) {
        client->quit = true;
        say(client, "221 bye\r\n");
    } else if (is(line, "MAIL") || is(line, "RCPT") || is(line, "RSET") || is(line, "NOOP") || is(line, "HELO"))
        say(client, "250 fine\r\n");
    else {
        counts.unknown++;
        say(client, "500 not known\r\n");
    }
}

/* Eats a mail's bytes; returns where what follows the end begins. */
static size_t eat_mail(struct client *client, const char *data, size_t size) {
    static const char ending[] = "\r\n.\r\n";
    for (size_t at = 0; at < size; at++) {
        if (data[at] == ending[client->end])
            client->end++;
        else
            client->end = data[at] == '\r';
        if (client->end == 5) {
            mail_ended(client);
            return at + 1;
        }
    }
    return size;
}

static void eat(struct client *client, const char *data, size_t size) {
    size_t at = 0;
    while (at < size && !client->quit) {
        if (client->in_data) {
            at += eat_mail(client, data + at, size - at);
            continue;
        }
        if (client->size == LINE - 1)
            client->size = 0; /* a line that never ends becomes an unknown command */
        client->line[client->size++] = data[at];
        if (data[at++] != '\n')
            continue;
        client->line[client->size] = 0;
        client->size = 0;
        command(client, client->line);
    }
}

static void client_read(struct client *client) {
    static char data[65536];
    ssize_t got = recv(client->fd, data, sizeof data, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got > 0) {
        counts.bytes += (unsigned long)got;
        eat(client, data, (size_t)got);
    }
    if (got <= 0 || client->quit)
        client_close(client);
}

static void accept_all(void) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
        struct client *client = calloc(1, sizeof *client);
        if (!client || fd >= MOST_CLIENTS)
            die("a client too many");
        client->fd = fd;
        clients[fd] = client;
        highest = fd > highest ? fd : highest;
        counts.connections++;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        watch(fd);
        say(client, "220 sink\r\n");
    }
}

static void obey(const char *line) {
    if (is(line, "counts"))
        printf("{\"connections\": %lu, \"mails\": %lu, \"bytes\": %lu, \"unknown\": %lu, \"waiting\": %lu, \"peak\": %lu}\n", counts.connections,
               counts.mails, counts.bytes, counts.unknown, counts.waiting, counts.peak);
    else if (is(line, "delay "))
        printf("{\"delay_ms\": %lu}\n", (unsigned long)((delay_ns = strtoull(line + 6, NULL, 10) * 1000000u) / 1000000u));
    else if (is(line, "reset")) {
        unsigned long waiting = counts.waiting;
        memset(&counts, 0, sizeof counts);
        counts.waiting = counts.peak = waiting;
        printf("{}\n");
    } else
        printf("{\"error\": \"counts, delay MS or reset\"}\n");
    fflush(stdout);
}

/* Whole lines, as whoever holds the other end of the pipe writes them. */
static void input_read(void) {
    char data[1024];
    ssize_t got = read(STDIN_FILENO, data, sizeof data - 1);
    if (got <= 0)
        exit(0);
    data[got] = 0;
    for (char *line = strtok(data, "\n"); line; line = strtok(NULL, "\n"))
        obey(line);
}

static void listen_on_free_port(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, size) < 0 || listen(listener, 4096) < 0 ||
        getsockname(listener, (struct sockaddr *)&address, &size) < 0)
        die("listen");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
}

int main(int count, char **values) {
    delay_ns = (count > 1 ? strtoull(values[1], NULL, 10) : 50) * 1000000u;
    epoll = epoll_create1(EPOLL_CLOEXEC);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (epoll < 0 || timer < 0)
        die("epoll");
    listen_on_free_port();
    watch(listener);
    watch(timer);
    watch(STDIN_FILENO);
    for (;;) {
        struct epoll_event events[256];
        int got = epoll_wait(epoll, events, 256, -1);
        if (got < 0 && errno != EINTR)
            die("epoll_wait");
        for (int at = 0; at < got; at++) {
            int fd = events[at].data.fd;
            if (fd == listener)
                accept_all();
            else if (fd == timer)
                confirm_due();
            else if (fd == STDIN_FILENO)
                input_read();
            else if (clients[fd])
                client_read(clients[fd]);
        }
        timer_arm();
    }
}
