/* A module for redis-server 7.0 that tests load: commands with each kind of key specs, and a container of subcommands.
 * Declares what it needs of the module API itself; names and layouts are those of redismodule.h (Redis 7.0). */
#include <stdint.h>
#include <stddef.h>

typedef struct RedisModuleCtx RedisModuleCtx;
typedef struct RedisModuleString RedisModuleString;
typedef struct RedisModuleCommand RedisModuleCommand;
typedef struct RedisModuleCallReply RedisModuleCallReply;
typedef int (*Handler)(RedisModuleCtx *, RedisModuleString **, int);

typedef struct {
    const char *notes;
    uint64_t flags;
    int begin_search_type; /* 2: by index, 3: by keyword */
    union {
        struct { int pos; } index;
        struct { const char *keyword; int startfrom; } keyword;
    } bs;
    int find_keys_type; /* 2: range, 3: keynum */
    union {
        struct { int lastkey; int keystep; int limit; } range;
        struct { int keynumidx; int firstkey; int keystep; } keynum;
    } fk;
} KeySpec;

typedef struct { int version; size_t history, keyspec, arg; } Version;

typedef struct {
    const Version *version;
    const char *summary, *complexity, *since;
    void *history;
    const char *tips;
    int arity;
    KeySpec *key_specs;
    void *args;
} Info;

static int (*GetApi)(const char *, void *);
static int (*SetModuleAttribs)(RedisModuleCtx *, const char *, int, int);
static int (*CreateCommand)(RedisModuleCtx *, const char *, Handler, const char *, int, int, int);
static RedisModuleCommand *(*GetCommand)(RedisModuleCtx *, const char *);
static int (*CreateSubcommand)(RedisModuleCommand *, const char *, Handler, const char *, int, int, int);
static int (*SetCommandInfo)(RedisModuleCommand *, const Info *);
static int (*ReplyWithArray)(RedisModuleCtx *, long);
static int (*ReplyWithString)(RedisModuleCtx *, RedisModuleString *);
static int (*ReplyWithSimpleString)(RedisModuleCtx *, const char *);
static int (*ReplyWithCallReply)(RedisModuleCtx *, RedisModuleCallReply *);
static RedisModuleCallReply *(*Call)(RedisModuleCtx *, const char *, const char *, ...);

/* Says what it was given. */
static int echo(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    ReplyWithArray(ctx, argc);
    for (int at = 0; at < argc; at++) ReplyWithString(ctx, argv[at]);
    return 0;
}

static int put(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    if (argc != 4) return ReplyWithSimpleString(ctx, "wrong");
    return ReplyWithCallReply(ctx, Call(ctx, "SET", "ss", argv[3], argv[2]));
}

static int take(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    if (argc != 3) return ReplyWithSimpleString(ctx, "wrong");
    return ReplyWithCallReply(ctx, Call(ctx, "GET", "s", argv[2]));
}

/* The value of a key, if it is here: Redis 7.0 does not look at key specs of modules before it runs a command. */
static int value_of(RedisModuleCtx *ctx, RedisModuleString *key) {
    RedisModuleCallReply *reply = Call(ctx, "GET", "s", key);
    return reply ? ReplyWithCallReply(ctx, reply) : ReplyWithSimpleString(ctx, "elsewhere");
}

static int counted_first(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    return argc < 3 ? ReplyWithSimpleString(ctx, "wrong") : value_of(ctx, argv[2]);
}

static int named_last(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    return value_of(ctx, argv[argc - 1]);
}

static const Version V1 = {1, 0, sizeof(KeySpec), 0};
/* REDISMODULE_CMD_KEY_RO | ACCESS, and RW | UPDATE. */
enum { READS = (1 << 0) | (1 << 4), WRITES = (1 << 1) | (1 << 5) };

static int describe(RedisModuleCommand *command, int arity, KeySpec *specs) {
    Version version = V1;
    (void)version;
    Info info = {&V1, "for tests", "O(1)", "1.0.0", NULL, NULL, arity, specs, NULL};
    return SetCommandInfo(command, &info);
}

int RedisModule_OnLoad(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    (void)argv, (void)argc;
    GetApi = (int (*)(const char *, void *))((void **)ctx)[0];
#define API(name) if (GetApi("RedisModule_" #name, (void *)&name)) return 1
    API(SetModuleAttribs); API(CreateCommand); API(GetCommand); API(CreateSubcommand); API(SetCommandInfo);
    API(ReplyWithArray); API(ReplyWithString); API(ReplyWithSimpleString); API(ReplyWithCallReply); API(Call);
    SetModuleAttribs(ctx, "probe", 1, 1);
    /* Old style: the key is the second argument. */
    if (CreateCommand(ctx, "probe.second", echo, "readonly", 2, 2, 1)) return 1;
    /* Key specs only. */
    if (CreateCommand(ctx, "probe.counted", counted_first, "readonly", 0, 0, 0)) return 1;
    KeySpec counted[] = {
        {NULL, READS, 2, {.index = {1}}, 3, {.keynum = {0, 1, 1}}}, {0}};
    if (describe(GetCommand(ctx, "probe.counted"), -3, counted)) return 1;
    if (CreateCommand(ctx, "probe.named", named_last, "readonly", 0, 0, 0)) return 1;
    KeySpec named[] = {
        {NULL, READS, 3, {.keyword = {"KEYS", 1}}, 2, {.range = {-1, 1, 0}}}, {0}};
    if (describe(GetCommand(ctx, "probe.named"), -3, named)) return 1;
    if (CreateCommand(ctx, "probe.keyless", echo, "readonly", 0, 0, 0)) return 1;
    /* A container: PROBE.BOX PUT value key, PROBE.BOX TAKE key. */
    if (CreateCommand(ctx, "probe.box", NULL, "", 0, 0, 0)) return 1;
    RedisModuleCommand *box = GetCommand(ctx, "probe.box");
    if (CreateSubcommand(box, "put", put, "write", 3, 3, 1)) return 1;
    if (CreateSubcommand(box, "take", take, "readonly", 2, 2, 1)) return 1;
    return 0;
}
