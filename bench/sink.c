/* The benchmarks' SMTP server: takes every message, keeps none, counts all.
 *
 *     sink [-k KEYWORD,...] [-l FILE] [-n COUNT] ADDRESS:PORT[,delay=MS][,tarpit][,silent] ...
 *
 *     -k   what EHLO offers ("" is nothing); RFC 5321, 1870, 2920, 3030 and 6531 are understood in any case
 *     -l   write a line for each message: seconds, endpoint, octets, recipients, Message-ID
 *     -n   report once that many messages have come, over all endpoints
 *
 *     delay=MS   every group of replies leaves that long after what it answers came: a far server
 *     tarpit     the end of a message is never answered
 *     silent     a connection is taken, and never greeted
 *
 * The first line on standard output has the endpoints' ports, which matters where 0 was asked for. A report, a JSON
 * object on a line, follows for each SIGUSR1, when COUNT is reached, and at the end, which SIGTERM and SIGINT bring.
 * All times are CLOCK_MONOTONIC, in seconds.
 *
 * One thread around epoll. Its report has its own CPU time since the first connection: where it was busy nearly all the
 * time, a benchmark has measured the sink.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum {
	LONGEST_COMMAND = 2048,
	KEPT_HEAD = 1024,       /* octets of a message in which its Message-ID is looked for */
	READ_AT_ONCE = 1 << 18,
	MOST_ENDPOINTS = 256,
	MARK = 5,               /* octets of the mark at the end of DATA */
};
static const char end_mark[] = "\r\n.\r\n";

/* What an epoll event is about: the first member of whatever it points to. */
enum kind { SIGNALS, TIMER, ENDPOINT, PEER };

/* Replies that wait for their time: the next `octets` of a peer's output. */
struct group {
	struct peer *peer;
	double due;
	size_t octets;
	struct group *next;
};

struct endpoint {
	enum kind kind;
	int fd, number, port;
	double delay;
	bool tarpit, silent;
	struct group *first, *last; /* in the order of their times, as the delay is the same for all */
	uint64_t messages, recipients, connections, open, most, octets, errors;
	double connected, first_message, last_message;
};

enum state { COMMANDS, DATA, CHUNK };

struct peer {
	enum kind kind;
	int fd;
	struct endpoint *at;
	enum state state;
	bool mail;              /* MAIL was taken */
	bool last, unwanted;    /* of the chunk: it ends the message; nobody asked for it */
	bool leaving;           /* QUIT: closed when all is said */
	bool gone;              /* the connection is over, and only `held` groups still point here */
	bool blocked;           /* the socket takes no more: EPOLLOUT is watched */
	uint64_t left;          /* octets that are still to come of the chunk */
	uint64_t size;          /* of the message so far */
	unsigned recipients;    /* of the transaction */
	unsigned held;          /* groups that wait */
	char tail[MARK - 1];    /* of what came: the mark may be cut in two */
	size_t command_octets, head_octets;
	char *out;              /* replies: `ready` octets may leave now, the others belong to groups */
	size_t out_octets, out_room, ready;
	size_t grouped;         /* octets of `out` that belong to a group or are ready */
	char command[LONGEST_COMMAND + 1];
	char head[KEPT_HEAD + 1];
};

static struct endpoint *endpoints[MOST_ENDPOINTS];
static int endpoint_count, poller, timer;
static double timer_due; /* 0: not set */
static uint64_t expected, messages, open_now, most_open;
static double cpu_before; /* the first connection */
static char hello[2048];
static FILE *message_log;
static enum kind signals_kind = SIGNALS, timer_kind = TIMER;

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void die(const char *what)
{
	fprintf(stderr, "sink: %s: %s\n", what, strerror(errno));
	exit(EXIT_FAILURE);
}

static void *take(void *memory)
{
	if (!memory)
		die("memory");
	return memory;
}

static double cpu_time(void)
{
	struct rusage used;
	getrusage(RUSAGE_SELF, &used);
	return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec)
		+ (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
}

static void report(const char *why)
{
	if (message_log)
		fflush(message_log); /* before the report: who reads one may read the other */
	double cpu = cpu_time() - cpu_before;
	printf("{\"why\":\"%s\",\"now\":%.6f,\"cpu\":%.6f,\"most\":%lu,\"handshakes\":0,\"resumed\":0,\"endpoints\":[", why, now(),
		cpu, most_open);
	for (int i = 0; i < endpoint_count; i++) {
		struct endpoint *e = endpoints[i];
		printf("%s{\"port\":%d,\"messages\":%lu,\"recipients\":%lu,\"connections\":%lu,\"open\":%lu,\"most\":%lu,"
			"\"octets\":%lu,\"errors\":%lu,\"connected\":%.6f,\"first\":%.6f,\"last\":%.6f}",
			i ? "," : "", e->port, e->messages, e->recipients, e->connections, e->open, e->most, e->octets,
			e->errors, e->connected, e->first_message, e->last_message);
	}
	printf("]}\n");
	fflush(stdout);
}

/* Output */

static void watch(struct peer *p, bool writable)
{
	struct epoll_event event = {.events = EPOLLIN | (writable ? EPOLLOUT : 0), .data.ptr = p};
	if (p->blocked != writable) {
		epoll_ctl(poller, EPOLL_CTL_MOD, p->fd, &event);
		p->blocked = writable;
	}
}

static void hang_up(struct peer *p)
{
	if (!p->gone) {
		close(p->fd);
		p->gone = true;
		p->at->open--;
		open_now--;
	}
	if (!p->held) {
		free(p->out);
		free(p);
	}
}

/* Write what may leave; false if the peer is no more. */
static bool flush(struct peer *p)
{
	while (p->ready) {
		ssize_t done = write(p->fd, p->out, p->ready);
		if (done < 0 && errno == EAGAIN) {
			watch(p, true);
			return true;
		}
		if (done < 0) {
			hang_up(p);
			return false;
		}
		memmove(p->out, p->out + done, p->out_octets - (size_t)done);
		p->out_octets -= (size_t)done;
		p->grouped -= (size_t)done;
		p->ready -= (size_t)done;
	}
	watch(p, false);
	if (p->leaving && !p->out_octets) {
		hang_up(p);
		return false;
	}
	return true;
}

static void reply(struct peer *p, const char *text)
{
	size_t octets = strlen(text);
	if (p->out_octets + octets > p->out_room) {
		p->out_room = 2 * (p->out_octets + octets);
		p->out = take(realloc(p->out, p->out_room));
	}
	memcpy(p->out + p->out_octets, text, octets);
	p->out_octets += octets;
}

/* What was replied to one read is a group: it leaves now, or when its time has come; false if the peer is no more. */
static bool send_group(struct peer *p)
{
	size_t octets = p->out_octets - p->grouped;
	if (!octets)
		return true;
	p->grouped = p->out_octets;
	struct endpoint *e = p->at;
	if (e->delay <= 0) {
		p->ready += octets;
		return p->blocked || flush(p);
	}
	struct group *g = take(malloc(sizeof *g));
	*g = (struct group){.peer = p, .due = now() + e->delay, .octets = octets};
	*(e->last ? &e->last->next : &e->first) = g;
	e->last = g;
	p->held++;
	return true;
}

static void release(void)
{
	double earliest = 0, t = now() + 50e-6; /* what is due within this is not worth another wait */
	for (int i = 0; i < endpoint_count; i++) {
		struct endpoint *e = endpoints[i];
		while (e->first && e->first->due <= t) {
			struct group *g = e->first;
			struct peer *p = g->peer;
			if (!(e->first = g->next))
				e->last = NULL;
			p->held--;
			if (p->gone)
				hang_up(p);
			else {
				p->ready += g->octets;
				flush(p);
			}
			free(g);
		}
		if (e->first && (earliest == 0 || e->first->due < earliest))
			earliest = e->first->due;
	}
	if (earliest != timer_due) {
		struct itimerspec when = {.it_value = {.tv_sec = (time_t)earliest,
			.tv_nsec = (long)((earliest - (double)(time_t)earliest) * 1e9)}};
		timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
		timer_due = earliest;
	}
}

/* Messages */

static void log_message(struct peer *p, double at)
{
	static const char field[] = "message-id:";
	const size_t name = sizeof field - 1;
	char *line = p->head;
	size_t octets = 0;
	p->head[p->head_octets] = 0;
	while (line && strncasecmp(line, field, name))
		line = (line = strchr(line, '\n')) ? line + 1 : NULL;
	if (line) {
		line += name + strspn(line + name, " \t\r\n"); /* the field may be folded */
		octets = strcspn(line, " \t\r\n");
	}
	fprintf(message_log, "%.6f %d %lu %u %.*s\n", at, p->at->number, p->size, p->recipients,
		octets ? (int)octets : 1, octets ? line : "-");
}

static void new_transaction(struct peer *p)
{
	p->mail = false;
	p->recipients = 0;
	p->size = 0;
	p->head_octets = 0;
}

static void take_message(struct peer *p)
{
	struct endpoint *e = p->at;
	if (e->tarpit)
		return;
	e->last_message = now();
	if (!e->messages++)
		e->first_message = e->last_message;
	e->recipients += p->recipients;
	if (message_log)
		log_message(p, e->last_message);
	new_transaction(p);
	reply(p, "250 2.0.0 taken\r\n");
	if (++messages == expected)
		report("expected");
}

static void keep_head(struct peer *p, const char *from, size_t octets)
{
	size_t room = KEPT_HEAD - p->head_octets;
	memcpy(p->head + p->head_octets, from, octets < room ? octets : room);
	p->head_octets += octets < room ? octets : room;
	p->size += octets;
}

static void remember_tail(struct peer *p, const char *from, size_t octets)
{
	const size_t kept = sizeof p->tail;
	if (octets >= kept)
		memcpy(p->tail, from + octets - kept, kept);
	else {
		memmove(p->tail, p->tail + octets, kept - octets);
		memcpy(p->tail + kept - octets, from, octets);
	}
}

/* The octets up to the end of the mark that ends DATA, which may have begun before `from`; 0 if it is not in here. */
static size_t find_end(const struct peer *p, const char *from, size_t octets)
{
	char seam[2 * (MARK - 1)];
	size_t ahead = octets < MARK - 1 ? octets : MARK - 1;
	memcpy(seam, p->tail, sizeof p->tail);
	memcpy(seam + sizeof p->tail, from, ahead);
	char *found = memmem(seam, sizeof p->tail + ahead, end_mark, MARK);
	if (found)
		return (size_t)(found - seam) + MARK - sizeof p->tail;
	found = memmem(from, octets, end_mark, MARK);
	return found ? (size_t)(found - from) + MARK : 0;
}

/* Each of these takes some of what has come, and returns how much. */

static size_t take_data(struct peer *p, const char *from, size_t octets)
{
	size_t end = find_end(p, from, octets), taken = end ? end : octets;
	keep_head(p, from, taken);
	if (end) {
		p->state = COMMANDS;
		p->size -= p->size > 3 ? 3 : p->size; /* ".", CR and LF belong to SMTP, not to the message */
		take_message(p);
	} else
		remember_tail(p, from, octets);
	return taken;
}

static void end_chunk(struct peer *p)
{
	p->state = COMMANDS;
	if (p->unwanted) {
		p->at->errors++;
		reply(p, "503 5.5.1 MAIL and RCPT first\r\n");
	} else if (p->last)
		take_message(p);
	else
		reply(p, "250 2.0.0 chunk taken\r\n");
}

static size_t take_chunk(struct peer *p, const char *from, size_t octets)
{
	size_t taken = octets < p->left ? octets : (size_t)p->left;
	if (!p->unwanted)
		keep_head(p, from, taken);
	p->left -= taken;
	if (!p->left)
		end_chunk(p);
	return taken;
}

static void begin_chunk(struct peer *p, const char *arguments)
{
	char *rest;
	errno = 0;
	p->left = strtoull(arguments, &rest, 10);
	rest += strspn(rest, " ");
	p->last = !strncasecmp(rest, "LAST", 4);
	if (errno || rest == arguments || (!p->last && *rest != '\r' && *rest != '\n')) {
		p->at->errors++;
		p->leaving = true; /* what follows cannot be told from commands */
		reply(p, "501 5.5.4 BDAT size [LAST]\r\n");
		return;
	}
	p->unwanted = !p->recipients;
	p->state = CHUNK;
	if (!p->left)
		end_chunk(p);
}

static void refuse(struct peer *p, const char *text)
{
	p->at->errors++;
	reply(p, text);
}

static bool is(const char *command, const char *verb)
{
	size_t octets = strlen(verb);
	return !strncasecmp(command, verb, octets) && strchr(" \r\n", command[octets]);
}

static void obey(struct peer *p, const char *command)
{
	if (is(command, "MAIL")) {
		if (p->mail) {
			refuse(p, "503 5.5.1 one at a time\r\n");
			return;
		}
		p->mail = true;
		reply(p, "250 2.1.0 ok\r\n");
	} else if (is(command, "RCPT")) {
		if (!p->mail) {
			refuse(p, "503 5.5.1 MAIL first\r\n");
			return;
		}
		p->recipients++;
		reply(p, "250 2.1.5 ok\r\n");
	} else if (is(command, "DATA")) {
		if (!p->recipients || p->size) {
			refuse(p, "503 5.5.1 MAIL and RCPT first\r\n");
			return;
		}
		p->state = DATA;
		memcpy(p->tail, "\0\0\r\n", sizeof p->tail); /* a dot may come at once: it stands at a line's start */
		reply(p, "354 go ahead\r\n");
	} else if (is(command, "BDAT"))
		begin_chunk(p, command + 4);
	else if (is(command, "EHLO")) {
		new_transaction(p);
		reply(p, hello);
	} else if (is(command, "HELO") || is(command, "RSET")) {
		new_transaction(p);
		reply(p, "250 2.0.0 ok\r\n");
	} else if (is(command, "NOOP"))
		reply(p, "250 2.0.0 ok\r\n");
	else if (is(command, "QUIT")) {
		p->leaving = true;
		reply(p, "221 2.0.0 bye\r\n");
	} else
		refuse(p, "500 5.5.2 unknown\r\n");
}

static size_t take_command(struct peer *p, const char *from, size_t octets)
{
	const char *end = memchr(from, '\n', octets);
	size_t taken = end ? (size_t)(end - from) + 1 : octets;
	size_t room = LONGEST_COMMAND - p->command_octets;
	memcpy(p->command + p->command_octets, from, taken < room ? taken : room);
	p->command_octets += taken < room ? taken : room;
	if (end) {
		p->command[p->command_octets] = 0;
		if (p->command_octets == LONGEST_COMMAND)
			refuse(p, "500 5.5.2 too long\r\n");
		else
			obey(p, p->command);
		p->command_octets = 0;
	}
	return taken;
}

static void hear(struct peer *p)
{
	static char octets[READ_AT_ONCE];
	ssize_t got = read(p->fd, octets, sizeof octets);
	if (got < 0 && errno == EAGAIN)
		return;
	if (got <= 0) {
		hang_up(p);
		return;
	}
	p->at->octets += (uint64_t)got;
	for (size_t at = 0; at < (size_t)got && !p->leaving;) {
		const char *from = octets + at;
		size_t rest = (size_t)got - at;
		at += p->state == DATA ? take_data(p, from, rest)
			: p->state == CHUNK ? take_chunk(p, from, rest)
			: take_command(p, from, rest);
	}
	send_group(p);
}

static void welcome(struct endpoint *e)
{
	int fd, on = 1;
	while ((fd = accept4(e->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		struct peer *p = take(calloc(1, sizeof *p));
		*p = (struct peer){.kind = PEER, .fd = fd, .at = e};
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		struct epoll_event event = {.events = EPOLLIN, .data.ptr = p};
		epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
		if (!most_open)
			cpu_before = cpu_time();
		if (!e->connections++)
			e->connected = now();
		if (++e->open > e->most)
			e->most = e->open;
		if (++open_now > most_open)
			most_open = open_now;
		if (!e->silent) {
			reply(p, "220 sink.example ESMTP\r\n");
			send_group(p);
		}
	}
}

/* Start */

static void add(int fd, void *what)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = what};
	if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event))
		die("epoll_ctl");
}

static void offer(char *keywords)
{
	size_t used = (size_t)snprintf(hello, sizeof hello, "250-sink.example\r\n");
	for (char *word = strtok(keywords, ","); word && used < sizeof hello; word = strtok(NULL, ","))
		used += (size_t)snprintf(hello + used, sizeof hello - used, "250-%s\r\n", word);
	if (used < sizeof hello)
		used += (size_t)snprintf(hello + used, sizeof hello - used, "250 HELP\r\n");
	if (used >= sizeof hello) {
		fprintf(stderr, "sink: too many keywords\n");
		exit(64);
	}
}

static void usage(const char *wrong)
{
	fprintf(stderr, "sink: %s: the head of sink.c says how it is used\n", wrong);
	exit(64);
}

static void listen_on(char *text)
{
	struct endpoint *e = take(calloc(1, sizeof *e));
	char *options = strchr(text, ',');
	if (options)
		*options++ = 0;
	for (char *option = options ? strtok(options, ",") : NULL; option; option = strtok(NULL, ","))
		if (!strncmp(option, "delay=", 6))
			e->delay = atof(option + 6) / 1000;
		else if (!strcmp(option, "tarpit"))
			e->tarpit = true;
		else if (!strcmp(option, "silent"))
			e->silent = true;
		else
			usage(option);
	char *colon = strrchr(text, ':');
	struct sockaddr_in address = {.sin_family = AF_INET};
	socklen_t length = sizeof address;
	if (!colon || endpoint_count == MOST_ENDPOINTS)
		usage(text);
	*colon = 0;
	address.sin_port = htons((uint16_t)atoi(colon + 1));
	if (!inet_aton(text, &address.sin_addr))
		usage(text);
	int on = 1;
	e->kind = ENDPOINT;
	e->number = endpoint_count;
	e->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	setsockopt(e->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(e->fd, (struct sockaddr *)&address, length) || listen(e->fd, 65535)
	    || getsockname(e->fd, (struct sockaddr *)&address, &length))
		die(text);
	e->port = ntohs(address.sin_port);
	add(e->fd, e);
	endpoints[endpoint_count++] = e;
}

static int hear_signals(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_PDEATHSIG, SIGTERM); /* a benchmark that was killed leaves nothing behind */
	return signalfd(-1, &set, SFD_CLOEXEC);
}

static void start(int argc, char **argv)
{
	char keywords[1024] = "PIPELINING,CHUNKING,8BITMIME,SMTPUTF8,SIZE 104857600";
	int option;
	while ((option = getopt(argc, argv, "k:l:n:")) != -1)
		if (option == 'k')
			snprintf(keywords, sizeof keywords, "%s", optarg);
		else if (option == 'l') {
			if (!(message_log = fopen(optarg, "we")))
				die(optarg);
		} else if (option == 'n')
			expected = strtoull(optarg, NULL, 10);
		else
			usage("option");
	if (optind == argc)
		usage("no endpoint");
	offer(keywords);
	struct rlimit files;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	while (optind < argc)
		listen_on(argv[optind++]);
	for (int i = 0; i < endpoint_count; i++)
		printf("%d%c", endpoints[i]->port, i + 1 < endpoint_count ? ' ' : '\n');
	fflush(stdout);
}

int main(int argc, char **argv)
{
	struct epoll_event events[512];
	int signals = hear_signals();
	poller = epoll_create1(EPOLL_CLOEXEC);
	timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (signals < 0 || poller < 0 || timer < 0)
		die("start");
	add(signals, &signals_kind);
	add(timer, &timer_kind);
	start(argc, argv);
	for (;;) {
		int count = epoll_wait(poller, events, sizeof events / sizeof *events, -1);
		for (int i = 0; i < count; i++) {
			void *what = events[i].data.ptr;
			struct signalfd_siginfo signal;
			uint64_t times;
			switch (*(enum kind *)what) {
			case SIGNALS:
				if (read(signals, &signal, sizeof signal) == sizeof signal && signal.ssi_signo != SIGUSR1) {
					report("ended");
					return EXIT_SUCCESS;
				}
				report("asked");
				break;
			case TIMER:
				if (read(timer, &times, sizeof times) == sizeof times)
					timer_due = 0;
				break;
			case ENDPOINT:
				welcome(what);
				break;
			case PEER:
				if (((struct peer *)what)->blocked && events[i].events & EPOLLOUT && !flush(what))
					break;
				hear(what);
				break;
			}
		}
		release();
	}
}
