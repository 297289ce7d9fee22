/* A program of the sandbox's image that works in an instance's network namespace. Without libc: it runs in an image
 * that holds nothing else. scripts/net_program.sh compiles it into net_program.py.
 *
 *   /net list                     writes /proc/net/tcp and /proc/net/tcp6 to its output
 *   /net forward A.B.C.D PORT F   accepts TCP connections at that address and port and forwards each to the same port
 *                                 of the loopback address (F is 4 for 127.0.0.1 or 6 for ::1). Ends when nothing
 *                                 listens there any more, so that a probe never takes it for the program itself.
 *   /net stop                     ends every other process of the sandbox but the first
 *
 * Ends with 0, or with 1 after a call that failed.
 */

typedef unsigned long word;

#if defined(__x86_64__)
enum { READ = 0, WRITE = 1, CLOSE = 3, MMAP = 9, SOCKET = 41, CONNECT = 42, SENDTO = 44, SHUTDOWN = 48, BIND = 49,
       LISTEN = 50, SETSOCKOPT = 54, GETSOCKOPT = 55, EXIT = 60, KILL = 62, OPENAT = 257, PPOLL = 271, ACCEPT4 = 288 };
__asm__(".section .text.start\n.globl _start\n_start: mov %rsp, %rdi\nand $-16, %rsp\ncall begin\n");

static long call(long number, word a, word b, word c, word d, word e, word f) {
    long result;
    register word r10 __asm__("r10") = d;
    register word r8 __asm__("r8") = e;
    register word r9 __asm__("r9") = f;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
enum { OPENAT = 56, CLOSE = 57, READ = 63, WRITE = 64, PPOLL = 73, EXIT = 93, KILL = 129, SOCKET = 198, BIND = 200,
       LISTEN = 201, CONNECT = 203, SENDTO = 206, SETSOCKOPT = 208, GETSOCKOPT = 209, SHUTDOWN = 210, MMAP = 222,
       ACCEPT4 = 242 };
__asm__(".section .text.start\n.globl _start\n_start: mov x0, sp\nbl begin\n");

static long call(long number, word a, word b, word c, word d, word e, word f) {
    register word x8 __asm__("x8") = number;
    register word x0 __asm__("x0") = a;
    register word x1 __asm__("x1") = b;
    register word x2 __asm__("x2") = c;
    register word x3 __asm__("x3") = d;
    register word x4 __asm__("x4") = e;
    register word x5 __asm__("x5") = f;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
}
#endif

enum { AF_INET = 2, AF_INET6 = 10, STREAM_NONBLOCK = 1 | 04000, SOL_SOCKET = 1, SO_REUSEADDR = 2, SO_ERROR = 4,
       TCP = 6, NODELAY = 1, NO_SIGNAL = 0x4000, SHUT_WR = 1, POLLIN = 1, POLLOUT = 4, EAGAIN = 11, EINTR = 4,
       EINPROGRESS = 115, ECONNREFUSED = 111 };
enum { PAIRS = 512, BUFFER = 16384, BACKLOG = 128 };

struct poll { int fd; short events, returned; };
struct address4 { unsigned short family, port; unsigned address; char zero[8]; };
struct address6 { unsigned short family, port; unsigned flow; unsigned char address[16]; unsigned scope; };
/* One direction: bytes that were read from one side and not yet written to the other. */
struct flow { unsigned start, end; int ended; char data[BUFFER]; };
/* side[0] is the client, side[1] the program; flows[n] goes from side n to the other. A pair without one is free. */
struct pair { int used, connecting; int side[2]; struct flow flows[2]; };
struct state { struct poll polls[1 + 2 * PAIRS]; struct pair pairs[PAIRS]; };

static void quit(int code) {
    for (;;) call(EXIT, code, 0, 0, 0, 0, 0);
}

static long must(long result) {
    if (result < 0) quit(1);
    return result;
}

static void copy_file(const char *path) {
    char data[4096];
    long fd = call(OPENAT, -100, (word)path, 0, 0, 0, 0), size;
    if (fd < 0) return; /* a kernel without IPv6 */
    while ((size = call(READ, fd, (word)data, sizeof data, 0, 0, 0)) > 0)
        for (long done = 0; done < size;)
            done += must(call(WRITE, 1, (word)(data + done), size - done, 0, 0, 0));
    call(CLOSE, fd, 0, 0, 0, 0, 0);
}

static unsigned number(const char **text) {
    unsigned value = 0;
    while (**text >= '0' && **text <= '9') value = value * 10 + (*(*text)++ - '0');
    if (**text == '.') ++*text;
    return value;
}

static unsigned short swapped(unsigned port) { return (unsigned short)(port << 8 | (port >> 8 & 255)); }

static void close_pair(struct pair *pair) {
    call(CLOSE, pair->side[0], 0, 0, 0, 0, 0);
    call(CLOSE, pair->side[1], 0, 0, 0, 0, 0);
    pair->used = 0;
}

static void set(int fd, int level, int option) {
    int one = 1;
    call(SETSOCKOPT, fd, level, option, (word)&one, sizeof one, 0);
}

static void open_pair(struct pair *pair, int client, int family, unsigned port) {
    struct address4 four = {AF_INET, swapped(port), 0, {0}};
    struct address6 six = {AF_INET6, swapped(port), 0, {0}, 0};
    *(volatile unsigned char *)&four.address = 127; /* in network order, whatever that of the machine is */
    ((volatile unsigned char *)&four.address)[3] = 1;
    six.address[15] = 1;
    long fd = call(SOCKET, family, STREAM_NONBLOCK, 0, 0, 0, 0);
    if (fd < 0) {
        call(CLOSE, client, 0, 0, 0, 0, 0);
        return;
    }
    long result = family == AF_INET ? call(CONNECT, fd, (word)&four, sizeof four, 0, 0, 0)
                                    : call(CONNECT, fd, (word)&six, sizeof six, 0, 0, 0);
    if (result == -ECONNREFUSED) quit(0);
    pair->used = 1;
    pair->connecting = result == -EINPROGRESS;
    pair->side[0] = client;
    pair->side[1] = (int)fd;
    for (int n = 0; n < 2; n++) pair->flows[n].start = pair->flows[n].end = pair->flows[n].ended = 0;
    set(client, TCP, NODELAY);
    set((int)fd, TCP, NODELAY);
    if (result < 0 && !pair->connecting) close_pair(pair);
}

/* Moves what can be moved from one side to the other; 0 when the pair is broken. */
static int move(struct pair *pair, int from) {
    struct flow *flow = &pair->flows[from];
    for (;;) {
        while (flow->start < flow->end) {
            long size = call(SENDTO, pair->side[1 - from], (word)(flow->data + flow->start), flow->end - flow->start,
                             NO_SIGNAL, 0, 0);
            if (size == -EAGAIN || size == -EINTR) return 1;
            if (size < 0) return 0;
            flow->start += (unsigned)size;
        }
        flow->start = flow->end = 0;
        if (flow->ended) return 1;
        long size = call(READ, pair->side[from], (word)flow->data, BUFFER, 0, 0, 0);
        if (size == -EAGAIN || size == -EINTR) return 1;
        if (size < 0) return 0;
        if (size == 0) {
            flow->ended = 1;
            call(SHUTDOWN, pair->side[1 - from], SHUT_WR, 0, 0, 0, 0);
            return 1;
        }
        flow->end = (unsigned)size;
        if (size < BUFFER) continue;
    }
}

/* What to wait for on one side. */
static short awaited(struct pair *pair, int n) {
    struct flow *in = &pair->flows[n], *out = &pair->flows[1 - n];
    short events = 0;
    if (!in->ended && in->start == in->end) events |= POLLIN;
    if (out->start < out->end) events |= POLLOUT;
    return events;
}

static void forward(const char *address, const char *text, int family) {
    unsigned port = number(&text);
    struct address4 here = {AF_INET, swapped(port), 0, {0}};
    for (int n = 0; n < 4; n++) ((volatile unsigned char *)&here.address)[n] = (unsigned char)number(&address);
    struct state *state = (struct state *)must(call(MMAP, 0, sizeof *state, 3, 0x22, -1, 0));
    int listener = (int)must(call(SOCKET, AF_INET, STREAM_NONBLOCK, 0, 0, 0, 0));
    set(listener, SOL_SOCKET, SO_REUSEADDR);
    must(call(BIND, listener, (word)&here, sizeof here, 0, 0, 0));
    must(call(LISTEN, listener, BACKLOG, 0, 0, 0, 0));
    for (;;) {
        struct pair *spare = 0;
        for (int n = 0; n < PAIRS; n++) {
            struct pair *pair = &state->pairs[n];
            if (!pair->used) spare = pair;
            for (int side = 0; side < 2; side++) {
                struct poll *poll = &state->polls[1 + 2 * n + side];
                poll->fd = pair->used ? pair->side[side] : -1;
                poll->events = pair->connecting ? (side ? POLLOUT : 0) : awaited(pair, side);
                /* A side that has ended is polled for nothing, but its end would be told again and again. */
                if (!poll->events) poll->fd = -1;
            }
        }
        state->polls[0].fd = spare ? listener : -1;
        state->polls[0].events = POLLIN;
        call(PPOLL, (word)state->polls, 1 + 2 * PAIRS, 0, 0, 0, 0);
        for (int n = 0; n < PAIRS; n++) {
            struct pair *pair = &state->pairs[n];
            struct poll *polls = &state->polls[1 + 2 * n];
            if (!pair->used || (polls[0].fd < 0 && polls[1].fd < 0)) continue;
            if (!(polls[0].fd >= 0 && polls[0].returned) && !(polls[1].fd >= 0 && polls[1].returned)) continue;
            if (pair->connecting) {
                int error = 0, size = sizeof error;
                call(GETSOCKOPT, pair->side[1], SOL_SOCKET, SO_ERROR, (word)&error, (word)&size, 0);
                if (error == ECONNREFUSED) quit(0);
                pair->connecting = 0;
                if (error) {
                    close_pair(pair);
                    continue;
                }
            }
            if (!move(pair, 0) || !move(pair, 1)
                || (pair->flows[0].ended && pair->flows[1].ended && pair->flows[0].start == pair->flows[0].end
                    && pair->flows[1].start == pair->flows[1].end))
                close_pair(pair);
        }
        if (spare && state->polls[0].returned) {
            long client = call(ACCEPT4, listener, 0, 0, 04000, 0, 0);
            if (client >= 0) open_pair(spare, (int)client, family, port);
        }
    }
}

void begin(word *stack) {
    char **argument = (char **)(stack + 1);
    word count = stack[0];
    if (count == 2 && argument[1][0] == 'l') {
        copy_file("/proc/net/tcp");
        copy_file("/proc/net/tcp6");
        quit(0);
    }
    if (count == 2 && argument[1][0] == 's') {
        call(KILL, -1, 9, 0, 0, 0, 0);
        quit(0);
    }
    if (count == 5) forward(argument[2], argument[3], argument[4][0] == '6' ? AF_INET6 : AF_INET);
    quit(1);
}
