/* The first process of an armed container: it waits, then becomes the program that the container is for.
 *
 *   arm TOKEN PORT PROGRAM [ARGUMENT]...
 *
 * It accepts TCP connections at PORT of all addresses of its network namespace. A connection begins with the token (32
 * characters) and is answered with `w`: waiting. On such a connection `r` releases it: it looks the program up as runc
 * does, answers `g` (going) and executes it, or answers `n` (not executable) and goes on waiting. A connection without
 * the token is closed. All sockets are closed by the execution, which the other side sees as the end of the connection.
 *
 * TCP and not UDP: the platform's firewall lets instances answer its own processes with TCP only, the kernel repeats
 * what is lost, and a connection that is open and authenticated ahead costs a single packet at the release. Nothing
 * wakes this process while it waits. It is built without libc: it runs in images that hold nothing else.
 */

#include "start.h"

#if defined(__x86_64__)
enum { READ = 0, WRITE = 1, CLOSE = 3, SIGACTION = 13, SOCKET = 41, BIND = 49, LISTEN = 50, SETSOCKOPT = 54, EXECVE = 59,
       EXIT = 231, OPENAT = 257, FACCESSAT = 269, PPOLL = 271, ACCEPT4 = 288 };
enum { O_DIRECTORY = 0200000 };
#elif defined(__aarch64__)
enum { FACCESSAT = 48, OPENAT = 56, CLOSE = 57, READ = 63, WRITE = 64, PPOLL = 73, EXIT = 94, SIGACTION = 134,
       SOCKET = 198, BIND = 200, LISTEN = 201, SETSOCKOPT = 208, EXECVE = 221, ACCEPT4 = 242 };
enum { O_DIRECTORY = 040000 };
#endif

enum { AF_INET = 2, STREAM_CLOEXEC = 1 | 02000000, CLOEXEC_NONBLOCK = 02000000 | 04000, SOL_SOCKET = 1, SO_REUSEADDR = 2,
       POLLIN = 1, AT_FDCWD = -100, X_OK = 1, O_PATH_CLOEXEC = 010000000 | 02000000, SA_RESTORER = 0x04000000 };
enum { SIGHUP = 1, SIGINT = 2, SIGQUIT = 3, SIGTERM = 15 };
enum { ENOENT = 2, E2BIG = 7, ENOEXEC = 8, ENOMEM = 12, EACCES = 13, ETXTBSY = 26, ELOOP = 40 };
enum { TOKEN = 32, CONNECTIONS = 4, PATH_BYTES = 4096, CANNOT_WAIT = 125 };

struct poll { int fd; short events, returned; };
struct address { unsigned short family, port; unsigned address; char zero[8]; };
struct action { void (*handler)(int); word flags; void (*restorer)(void); word mask; };
#define IGNORED ((void (*)(int))1) /* SIG_IGN */
/* read: bytes of the token that came; wrong: not 0 when one of them was. */
struct connection { int fd, read, wrong; };

static void quit(int code) {
    for (;;) call(EXIT, code, 0, 0, 0, 0, 0);
}

static void ended(int signal) { quit(128 + signal); }

static long must(long result) {
    if (result < 0) quit(CANNOT_WAIT);
    return result;
}

static word length(const char *text) {
    word size = 0;
    while (text[size]) size++;
    return size;
}

static void say(const char *text) { call(WRITE, 2, (word)text, length(text), 0, 0, 0); }

static const char *message(long error) {
    switch (error) {
    case ENOENT: return "no such file or directory";
    case E2BIG: return "argument list too long";
    case ENOEXEC: return "exec format error";
    case ENOMEM: return "cannot allocate memory";
    case EACCES: return "permission denied";
    case ETXTBSY: return "text file busy";
    case ELOOP: return "too many levels of symbolic links";
    default: return "it cannot be executed";
    }
}

/* Whether runc would execute this file: not a directory, and this user may execute it. */
static int executable(const char *path) {
    long directory = call(OPENAT, AT_FDCWD, (word)path, O_DIRECTORY | O_PATH_CLOEXEC, 0, 0, 0);
    if (directory >= 0) {
        call(CLOSE, directory, 0, 0, 0, 0, 0);
        return 0;
    }
    return call(FACCESSAT, AT_FDCWD, (word)path, X_OK, 0, 0, 0) == 0;
}

/* The file of a program, as Go's exec.LookPath finds it for runc; 0 when there is none. Through a relative folder of
 * PATH runc executes nothing. */
static const char *lookup(const char *program, char **environment, char *path) {
    word size = length(program);
    for (word n = 0; n < size; n++)
        if (program[n] == '/') return executable(program) ? program : 0;
    for (; *environment; environment++) {
        const char *entry = *environment;
        if (entry[0] != 'P' || entry[1] != 'A' || entry[2] != 'T' || entry[3] != 'H' || entry[4] != '=') continue;
        for (entry += 5; size && *entry;) {
            word folder = 0;
            while (entry[folder] && entry[folder] != ':') folder++;
            if (folder + size + 2 <= PATH_BYTES) {
                for (word n = 0; n < folder; n++) path[n] = entry[n];
                word start = folder && entry[folder - 1] == '/' ? folder : folder + 1;
                path[folder] = folder ? '/' : '.';
                if (!folder) path[start++] = '/';
                for (word n = 0; n <= size; n++) path[start + n] = program[n];
                if (executable(path)) return *path == '/' ? path : 0;
            }
            entry += folder + (entry[folder] == ':');
        }
        return 0;
    }
    return 0;
}

/* Executes the program. Returns when there is none; what fails later is written as by runc. */
static void release(int connection, char **program, char **environment) {
    char path[PATH_BYTES];
    const char *file = lookup(*program, environment, path);
    call(WRITE, connection, (word)(file ? "g" : "n"), 1, 0, 0, 0);
    if (!file) return;
    long error = -call(EXECVE, (word)file, (word)program, (word)environment, 0, 0, 0);
    say("exec ");
    say(file);
    say(": ");
    say(message(error));
    say("\n");
    quit(1);
}

static void end(struct connection *connection) {
    call(CLOSE, connection->fd, 0, 0, 0, 0, 0);
    connection->fd = -1;
}

static void receive(struct connection *connection, const char *token, char **program, char **environment) {
    char data[64];
    long size = call(READ, connection->fd, (word)data, sizeof data, 0, 0, 0);
    if (size <= 0) end(connection);
    for (long n = 0; n < size && connection->fd >= 0; n++) {
        if (connection->read == TOKEN) {
            if (data[n] == 'r') release(connection->fd, program, environment);
            continue;
        }
        connection->wrong |= data[n] ^ token[connection->read++];
        if (connection->read < TOKEN) continue;
        if (connection->wrong) end(connection);
        else call(WRITE, connection->fd, (word)"w", 1, 0, 0, 0);
    }
}

/* A place for a new connection: a free one, else that of one that has not shown the token, else the first. */
static struct connection *place(struct connection *connections) {
    struct connection *chosen = connections;
    for (int n = 0; n < CONNECTIONS; n++) {
        if (connections[n].fd < 0) return &connections[n];
        if (connections[n].read < TOKEN) chosen = &connections[n];
    }
    end(chosen);
    return chosen;
}

static void wait(int listener, const char *token, char **program, char **environment) {
    struct connection connections[CONNECTIONS];
    struct poll polls[1 + CONNECTIONS];
    for (int n = 0; n < CONNECTIONS; n++) connections[n].fd = -1;
    for (;;) {
        for (int n = 0; n <= CONNECTIONS; n++) {
            polls[n].fd = n ? connections[n - 1].fd : listener;
            polls[n].events = POLLIN;
            polls[n].returned = 0;
        }
        call(PPOLL, (word)polls, 1 + CONNECTIONS, 0, 0, 0, 0);
        for (int n = 0; n < CONNECTIONS; n++)
            if (polls[1 + n].returned) receive(&connections[n], token, program, environment);
        if (polls[0].returned) {
            long client = call(ACCEPT4, listener, 0, 0, CLOEXEC_NONBLOCK, 0, 0);
            if (client < 0) continue;
            struct connection *free = place(connections);
            free->fd = (int)client;
            free->read = free->wrong = 0;
        }
    }
}

/* As the first process of its namespace it would ignore these signals without a handler. A signal that was ignored
 * already stays ignored, because the program inherits that. */
static void end_by(int signal) {
    struct action action = {ended, SA_RESTORER, 0, 0}, previous;
    call(SIGACTION, signal, (word)&action, (word)&previous, sizeof action.mask, 0, 0);
    if (previous.handler == IGNORED) call(SIGACTION, signal, (word)&previous, 0, sizeof action.mask, 0, 0);
}

void begin(word *stack) {
    word count = stack[0];
    char **argument = (char **)(stack + 1);
    if (count < 4 || length(argument[1]) != TOKEN) quit(CANNOT_WAIT);
    unsigned port = 0;
    for (const char *digit = argument[2]; *digit; digit++) port = port * 10 + (unsigned)(*digit - '0');
    end_by(SIGHUP);
    end_by(SIGINT);
    end_by(SIGQUIT);
    end_by(SIGTERM);
    struct address here = {AF_INET, (unsigned short)(port << 8 | (port >> 8 & 255)), 0, {0}};
    int one = 1, listener = (int)must(call(SOCKET, AF_INET, STREAM_CLOEXEC, 0, 0, 0, 0));
    call(SETSOCKOPT, listener, SOL_SOCKET, SO_REUSEADDR, (word)&one, sizeof one, 0);
    must(call(BIND, listener, (word)&here, sizeof here, 0, 0, 0));
    must(call(LISTEN, listener, CONNECTIONS, 0, 0, 0, 0));
    wait(listener, argument[1], argument + 3, argument + count + 1);
}
