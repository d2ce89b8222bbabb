/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The allow-list: what is known of httpd's modules and directives. What isn't listed is taken to
 * change requests.
 *
 * Why directives of the file system, of MIME types and of translation are neutral: our
 * translate_name takes a routed request before mod_alias, mod_userdir and the like see it;
 * map_to_storage keeps directory and file walks away, type_checker mod_mime and mod_negotiation;
 * the handler comes before mod_actions. */
#include <string.h>
#include <strings.h>
#include <apr_hash.h>
#include <apr_lib.h>
#include <apr_strings.h>

#include "rproxy/engine/rp_eligible_private.h"

/* ---- modules, and their directives that are neutral wherever they stand ---------------------- */

/** "*" stands for all directives of the module that have no rule below. */
typedef struct known_module {
    const char *name;
    const char *neutral;                /* names between blanks */
} known_module;

static const char core_directives[] =
    " AcceptFilter AcceptPathInfo AccessFileName AllowEncodedSlashes AllowOverride "
    "AllowOverrideList CGIMapExtension CGIPassAuth CGIVar CoreDumpDirectory DefaultRuntimeDir "
    "DefaultStateDir DefaultType Define DocumentRoot EnableExceptionHook EnableMMAP "
    "EnableSendfile Error ErrorLog ErrorLogFormat ExtendedStatus FileETag "
    "FlushMaxPipelined FlushMaxThreshold GprofDir GracefulShutdownTimeout Include "
    "IncludeOptional LimitInternalRecursion LimitRequestFields "
    "LimitRequestFieldsize LimitRequestLine LimitXMLRequestBody Listen ListenBackLog "
    "ListenCoresBucketsRatio LogLevel MaxConnectionsPerChild MaxMemFree MaxRequestsPerChild "
    "MergeSlashes Mutex NameVirtualHost Options PidFile Port Protocols ProtocolsHonorOrder "
    "QualifyRedirectURL RLimitCPU RLimitMEM RLimitNPROC ReadBufferSize ReceiveBufferSize "
    "RegisterHttpMethod ScoreBoardFile SeeRequestTail SendBufferSize ServerAdmin ServerAlias "
    "ServerName ServerRoot ServerSignature ServerTokens ThreadStackSize Timeout TraceEnable "
    "UnDefine UNCList UseCanonicalName UseCanonicalPhysicalPort ";

static const char ssl_directives[] =
    " SSLCACertificateFile SSLCACertificatePath SSLCADNRequestFile SSLCADNRequestPath "
    "SSLCARevocationCheck SSLCARevocationFile SSLCARevocationPath SSLCertificateChainFile "
    "SSLCertificateFile SSLCertificateKeyFile SSLCompression SSLCryptoDevice SSLFIPS "
    "SSLHonorCipherOrder SSLInsecureRenegotiation SSLLog SSLLogLevel SSLOCSPDefaultResponder "
    "SSLOCSPEnable SSLOCSPNoverify SSLOCSPOverrideResponder SSLOCSPProxyURL "
    "SSLOCSPResponderCertificateFile SSLOCSPResponderTimeout SSLOCSPResponseMaxAge "
    "SSLOCSPResponseTimeSkew SSLOCSPUseRequestNonce SSLOpenSSLConfCmd SSLPassPhraseDialog "
    "SSLProtocol SSLRandomSeed SSLRenegBufferSize SSLSessionCache SSLSessionCacheTimeout "
    "SSLSessionTicketKeyFile SSLSessionTickets SSLStaplingCache SSLStaplingErrorCacheTimeout "
    "SSLStaplingFakeTryLater SSLStaplingForceURL SSLStaplingResponderTimeout "
    "SSLStaplingResponseMaxAge SSLStaplingResponseTimeSkew SSLStaplingReturnResponderErrors "
    "SSLStaplingStandardCacheTimeout SSLStrictSNIVHostCheck SSLUseStapling "
    "SSLVHostSNIPolicy "
    "SSLProxyCACertificateFile SSLProxyCACertificatePath SSLProxyCARevocationCheck "
    "SSLProxyCARevocationFile SSLProxyCARevocationPath SSLProxyCheckPeerCN SSLProxyCheckPeerExpire "
    "SSLProxyCheckPeerName SSLProxyCipherSuite SSLProxyEngine SSLProxyMachineCertificateChainFile "
    "SSLProxyMachineCertificateFile SSLProxyMachineCertificatePath SSLProxyProtocol SSLProxyVerify "
    "SSLProxyVerifyDepth ";

/* What says how mod_proxy proxies, not what. */
static const char proxy_directives[] =
    " BalancerGrowth BalancerInherit BalancerMember BalancerPersist NoProxy Proxy100Continue "
    "ProxyAddHeaders ProxyBadHeader ProxyBlock ProxyDomain ProxyErrorOverride ProxyIOBufferSize "
    "ProxyMaxForwards ProxyPassInherit ProxyPassInterpolateEnv ProxyPassReverse "
    "ProxyPassReverseCookieDomain ProxyPassReverseCookiePath ProxyPreserveHost "
    "ProxyReceiveBufferSize ProxyRemote ProxyRemoteMatch ProxySet ProxySourceAddress ProxyStatus "
    "ProxyTimeout ProxyVia ";

static const known_module modules[] = {
    { "core.c", core_directives },
    { "event.c", "*" },
    { "http_core.c", " KeepAlive KeepAliveTimeout MaxKeepAliveRequests " },
    { "mod_access_compat.c", "" },
    { "mod_actions.c", "*" },
    { "mod_alias.c", " Alias AliasMatch AliasPreservePath RedirectRelative ScriptAlias "
                     "ScriptAliasMatch " },
    { "mod_allowmethods.c", "" },
    { "mod_asis.c", "" },
    { "mod_auth_basic.c", "" },
    { "mod_auth_digest.c", " AuthDigestNcCheck AuthDigestShmemSize " },
    { "mod_auth_form.c", "" },
    { "mod_authn_anon.c", "" },
    { "mod_authn_core.c", "" },
    { "mod_authn_dbd.c", "" },
    { "mod_authn_dbm.c", "" },
    { "mod_authn_file.c", "" },
    { "mod_authn_socache.c", " AuthnCacheEnable AuthnCacheSOCache " },
    { "mod_authnz_fcgi.c", " AuthnzFcgiDefineProvider " },
    { "mod_authnz_ldap.c", " AuthLDAPCharsetConfig " },
    { "mod_authz_core.c", "" },
    { "mod_authz_dbd.c", "" },
    { "mod_authz_dbm.c", "" },
    { "mod_authz_groupfile.c", "" },
    { "mod_authz_host.c", "" },
    { "mod_authz_owner.c", "" },
    { "mod_authz_user.c", "" },
    { "mod_autoindex.c", "*" },
    { "mod_brotli.c", "*" },
    { "mod_buffer.c", "*" },
    { "mod_cache.c", "*" },
    { "mod_cache_disk.c", "*" },
    { "mod_cache_socache.c", "*" },
    { "mod_cern_meta.c", "" },
    { "mod_cgi.c", "*" },
    { "mod_cgid.c", "*" },
    { "mod_charset_lite.c", "" },
    { "mod_data.c", "" },
    { "mod_dav.c", " DavBasePath DavDepthInfinity DavLockDiscovery DavMinTimeout " },
    { "mod_dav_fs.c", "*" },
    { "mod_dav_lock.c", "*" },
    { "mod_dbd.c", "*" },
    { "mod_deflate.c", "*" },
    { "mod_dialup.c", "" },
    { "mod_dir.c", "*" },
    { "mod_dumpio.c", "" },
    { "mod_echo.c", "" },
    { "mod_env.c", "" },
    { "mod_expires.c", " ExpiresByType ExpiresDefault " },
    { "mod_ext_filter.c", "*" },
    { "mod_file_cache.c", "" },
    { "mod_filter.c", " FilterDeclare FilterProtocol FilterTrace " },
    { "mod_headers.c", "" },
    { "mod_heartbeat.c", "*" },
    { "mod_heartmonitor.c", "*" },
    { "mod_http2.c", "*" },
    { "mod_ident.c", "" },
    { "mod_imagemap.c", "*" },
    { "mod_include.c", "*" },
    { "mod_info.c", "*" },
    { "mod_lbmethod_bybusyness.c", "*" },
    { "mod_lbmethod_byrequests.c", "*" },
    { "mod_lbmethod_bytraffic.c", "*" },
    { "mod_lbmethod_heartbeat.c", "*" },
    { "mod_log_config.c", " BufferedLogs LogFormat TransferLog " },
    { "mod_log_debug.c", "" },
    { "mod_logio.c", "" },
    { "mod_macro.c", "*" },
    { "mod_md.c", "*" },
    { "mod_mime.c", "*" },
    { "mod_mime_magic.c", "*" },
    { "mod_negotiation.c", "*" },
    { "mod_proxy.c", proxy_directives },
    { "mod_proxy_ajp.c", "*" },
    { "mod_proxy_balancer.c", "*" },
    { "mod_proxy_connect.c", "*" },
    { "mod_proxy_express.c", "" },
    { "mod_proxy_fcgi.c", "*" },
    { "mod_proxy_fdpass.c", "*" },
    { "mod_proxy_ftp.c", "*" },
    { "mod_proxy_hcheck.c", "*" },
    { "mod_proxy_html.c", "" },
    { "mod_proxy_http.c", "*" },
    { "mod_proxy_http2.c", "*" },
    { "mod_proxy_scgi.c", "*" },
    { "mod_proxy_uwsgi.c", "*" },
    { "mod_proxy_wstunnel.c", "*" },
    { "mod_ratelimit.c", "" },
    { "mod_reflector.c", "" },
    { "mod_remoteip.c", "" },
    { "mod_reqtimeout.c", " RequestReadTimeout " },
    { "mod_request.c", "" },
    /* Rules without RewriteEngine on do nothing. */
    { "mod_rewrite.c", " RewriteBase RewriteCond RewriteMap RewriteOptions RewriteRule " },
    { "mod_rproxy_balancer.c", "*" },
    { "mod_rproxy_cache.c", "" },
    { "mod_sed.c", "" },
    { "mod_session.c", "" },
    { "mod_session_cookie.c", "" },
    { "mod_session_crypto.c", "" },
    { "mod_session_dbd.c", "" },
    { "mod_setenvif.c", "" },
    { "mod_slotmem_plain.c", "*" },
    { "mod_slotmem_shm.c", "*" },
    { "mod_so.c", "*" },
    { "mod_socache_dbm.c", "*" },
    { "mod_socache_memcache.c", "*" },
    { "mod_socache_redis.c", "*" },
    { "mod_socache_shmcb.c", "*" },
    { "mod_speling.c", " CheckBasenameMatch CheckCaseOnly " },
    { "mod_ssl.c", ssl_directives },
    { "mod_status.c", "*" },
    { "mod_substitute.c", "" },
    { "mod_suexec.c", "*" },
    { "mod_systemd.c", "*" },
    { "mod_unixd.c", "*" },
    { "mod_userdir.c", "*" },
    { "mod_usertrack.c", " CookieDomain CookieExpires CookieName CookieStyle " },
    { "mod_version.c", "*" },
    { "mod_vhost_alias.c", "*" },
    { "mod_watchdog.c", "*" },
    { "mod_xml2enc.c", "" },
    { "prefork.c", "*" },
    { "util_ldap.c", "*" },
    { "worker.c", "*" },
};

/* ---- directives of which the arguments or the place decide ----------------------------------- */

/** What a rule may look at. */
typedef struct known_place {
    apr_pool_t *pool;
    const char *arguments;
    int in_section;
    const rp_log_facts *log;
} known_place;

typedef rp_effect known_rule(const known_place *place);

static const char *first_word(const known_place *place)
{
    const char *arguments = place->arguments;

    return ap_getword_conf(place->pool, &arguments);
}

static rp_effect neutral_if(int neutral)
{
    return neutral ? RP_EFFECT_NONE : RP_EFFECT_PIPELINE;
}

static rp_effect inside(const known_place *place)
{
    (void)place;
    return RP_EFFECT_INSIDE;
}

static rp_effect location(const known_place *place)
{
    (void)place;
    return RP_EFFECT_LOCATION;
}

static rp_effect unreached(const known_place *place)
{
    (void)place;
    return RP_EFFECT_UNREACHED;
}

static rp_effect never(const known_place *place)
{
    (void)place;
    return RP_EFFECT_PIPELINE;
}

static rp_effect if_off(const known_place *place)
{
    return neutral_if(!strcasecmp(first_word(place), "off"));
}

/** In a <Location> it acts in fixups, or tells httpd to ask the client for more. */
static rp_effect at_server(const known_place *place)
{
    return neutral_if(!place->in_section);
}

static rp_effect if_granted(const known_place *place)
{
    const char *arguments = place->arguments;
    const char *provider = ap_getword_conf(place->pool, &arguments);
    const char *what = ap_getword_conf(place->pool, &arguments);

    return neutral_if(!strcasecmp(provider, "all") && !strcasecmp(what, "granted") && !*arguments);
}

/** Strict is the default, methods that httpd doesn't know go to the pipeline anyhow; what Unsafe
 * lets through, the engine's parser refuses. */
static rp_effect protocol_options(const known_place *place)
{
    const char *arguments = place->arguments;

    while (*arguments) {
        const char *word = ap_getword_conf(place->pool, &arguments);

        if (!strcasecmp(word, "Unsafe"))
            return RP_EFFECT_PIPELINE;
    }
    return RP_EFFECT_NONE;
}

/** In HTTP/1.1 the pipeline words the proxy's errors. */
static rp_effect error_document(const known_place *place)
{
    const char *arguments = place->arguments;

    ap_getword_conf(place->pool, &arguments);
    return !strcasecmp(ap_getword_conf(place->pool, &arguments), "default") ? RP_EFFECT_NONE
                                                                            : RP_EFFECT_HTTP1;
}

static rp_effect tls_engine(const known_place *place)
{
    const char *value = first_word(place);

    /* "optional" offers TLS in responses. */
    return neutral_if(!strcasecmp(value, "on") || !strcasecmp(value, "off"));
}

static rp_effect tls_options(const known_place *place)
{
    const char *arguments = place->arguments;

    while (*arguments) {
        const char *word = ap_getword_conf(place->pool, &arguments);

        if (*word == '+')
            word++;
        /* Variables of mod_ssl that logs show are a reason of their own. */
        if (!strcasecmp(word, "FakeBasicAuth"))
            return RP_EFFECT_PIPELINE;
    }
    return RP_EFFECT_NONE;
}

/** CustomLog and GlobalLog: file, format, condition. */
static rp_effect log_file(const known_place *place)
{
    const char *arguments = place->arguments;

    ap_getword_conf(place->pool, &arguments);
    ap_getword_conf(place->pool, &arguments);
    return neutral_if(!*arguments);
}

/** Variables that httpd itself looks at have lower-case names; others matter to logs only. */
static rp_effect environment(const known_place *place)
{
    const char *arguments = place->arguments;

    while (*arguments) {
        const char *word = ap_getword_conf(place->pool, &arguments);

        for (const char *p = word; *p; p++) {
            if (!apr_isupper(*p) && !apr_isdigit(*p) && *p != '_')
                return RP_EFFECT_PIPELINE;
        }
        if (rp_log_shows(place->log, word))
            return RP_EFFECT_PIPELINE;
    }
    return RP_EFFECT_NONE;
}

/** The value behind the name is anything. */
static rp_effect set_environment(const known_place *place)
{
    known_place name = *place;

    name.arguments = first_word(place);
    return environment(&name);
}

/** The pages by which people look after the server, not its users. */
static rp_effect handler(const known_place *place)
{
    static const char *const status_pages[] = {
        "balancer-manager", "ldap-status", "md-status", "rproxy-manager", "rproxy-metrics",
        "server-info", "server-status", NULL
    };
    const char *name = first_word(place);

    for (int i = 0; status_pages[i]; i++) {
        if (!strcasecmp(name, status_pages[i]))
            return RP_EFFECT_STATUS_PAGE;
    }
    return RP_EFFECT_HANDLER;
}

/** How HTTP/1.x answers are written and their connections end; what mod_dir does, which no route
 * reaches; what compresses, which would be a reason of its own. force-no-vary isn't one of them: it
 * removes a field. */
int rp_known_idle_variable(const char *name)
{
    static const char *const idle[] = {
        "downgrade-1.0", "force-response-1.0", "gzip-only-text/html", "no-brotli", "no-gzip",
        "nokeepalive", "redirect-carefully", "ssl-unclean-shutdown", NULL
    };

    for (int i = 0; idle[i]; i++) {
        if (!strcasecmp(name, idle[i]))
            return 1;
    }
    return 0;
}

static rp_effect browser(const known_place *place)
{
    return place->in_section ? RP_EFFECT_PIPELINE : RP_EFFECT_BROWSER;
}

static rp_effect attribute(const known_place *place)
{
    return place->in_section ? RP_EFFECT_PIPELINE : RP_EFFECT_REQUEST;
}

/** Which of the two proxies gets a request depends on the order of modules. */
static rp_effect proxy_pass(const known_place *place)
{
    const char *first = first_word(place);

    return place->in_section || *first != '/' || strstr(place->arguments, "mapping=")
           ? RP_EFFECT_PIPELINE : RP_EFFECT_PATH;
}

static rp_effect proxy_pass_match(const known_place *place)
{
    return place->in_section || strstr(place->arguments, "mapping=") ? RP_EFFECT_PIPELINE
                                                                     : RP_EFFECT_PATH_REGEX;
}

int rp_known_header(apr_pool_t *pool, int is_request, const char *arguments, rp_header_rule *rule)
{
    const char *words[6];               /* condition, action, name, value, and one too many */
    int count = 0;

    while (*arguments && count < (int)(sizeof(words) / sizeof(words[0])))
        words[count++] = ap_getword_conf(pool, &arguments);
    return rp_header_rule_parse(pool, is_request, words, count, rule);
}

static rp_effect response_header(const known_place *place)
{
    rp_header_rule rule;

    return rp_known_header(place->pool, 0, place->arguments, &rule) ? RP_EFFECT_HEADER
                                                                    : RP_EFFECT_PIPELINE;
}

static rp_effect request_header(const known_place *place)
{
    rp_header_rule rule;

    return rp_known_header(place->pool, 1, place->arguments, &rule) ? RP_EFFECT_HEADER
                                                                    : RP_EFFECT_PIPELINE;
}

static const struct directive_rule {
    const char *module;
    const char *name;
    known_rule *rule;
} rules[] = {
    { "core.c", "<Directory", unreached },
    { "core.c", "<DirectoryMatch", unreached },
    { "core.c", "<Files", unreached },
    { "core.c", "<FilesMatch", unreached },
    { "core.c", "<Limit", inside },
    { "core.c", "<LimitExcept", inside },
    { "core.c", "<Location", location },
    { "core.c", "<LocationMatch", location },
    { "core.c", "AddDefaultCharset", if_off },
    { "core.c", "ContentDigest", if_off },
    { "core.c", "ErrorDocument", error_document },
    { "core.c", "HostnameLookups", if_off },
    { "core.c", "HttpProtocolOptions", protocol_options },
    { "core.c", "MergeTrailers", if_off },
    { "core.c", "SetHandler", handler },
    { "core.c", "StrictHostCheck", if_off },
    { "mod_alias.c", "Redirect", at_server },
    { "mod_alias.c", "RedirectMatch", at_server },
    { "mod_alias.c", "RedirectPermanent", at_server },
    { "mod_alias.c", "RedirectTemp", at_server },
    { "mod_authn_core.c", "<AuthnProviderAlias", unreached },
    { "mod_authz_core.c", "<AuthzProviderAlias", unreached },
    { "mod_authz_core.c", "Require", if_granted },
    { "mod_buffer.c", "BufferSize", at_server },
    { "mod_cache.c", "CacheEnable", never },
    { "mod_dav.c", "Dav", if_off },
    { "mod_env.c", "PassEnv", environment },
    { "mod_env.c", "SetEnv", set_environment },
    { "mod_env.c", "UnsetEnv", environment },
    { "mod_expires.c", "ExpiresActive", if_off },
    { "mod_headers.c", "Header", response_header },
    { "mod_headers.c", "RequestHeader", request_header },
    { "mod_http2.c", "H2EarlyHint", never },
    { "mod_http2.c", "H2PushResource", never },
    { "mod_log_config.c", "CustomLog", log_file },
    { "mod_log_config.c", "GlobalLog", log_file },
    { "mod_logio.c", "LogIOTrackTTFB", if_off },
    { "mod_md.c", "<MDomain", inside },
    { "mod_md.c", "<MDomainSet", inside },
    { "mod_md.c", "MDRequireHttps", if_off },
    { "mod_proxy.c", "<Proxy", unreached },
    { "mod_proxy.c", "<ProxyMatch", unreached },
    { "mod_proxy.c", "ProxyPass", proxy_pass },
    { "mod_proxy.c", "ProxyPassMatch", proxy_pass_match },
    { "mod_proxy.c", "ProxyRequests", if_off },
    { "mod_proxy_express.c", "ProxyExpressEnable", if_off },
    { "mod_rewrite.c", "RewriteEngine", if_off },
    { "mod_setenvif.c", "BrowserMatch", browser },
    { "mod_setenvif.c", "BrowserMatchNoCase", browser },
    { "mod_setenvif.c", "SetEnvIf", attribute },
    { "mod_setenvif.c", "SetEnvIfNoCase", attribute },
    { "mod_speling.c", "CheckSpelling", if_off },
    { "mod_ssl.c", "SSLCipherSuite", at_server },
    { "mod_ssl.c", "SSLEngine", tls_engine },
    { "mod_ssl.c", "SSLOptions", tls_options },
    { "mod_ssl.c", "SSLVerifyClient", at_server },
    { "mod_ssl.c", "SSLVerifyDepth", at_server },
    { "mod_usertrack.c", "CookieTracking", if_off },
};

/* ---- looking things up ----------------------------------------------------------------------- */

/** How a directive is judged, whatever its arguments. */
typedef struct judgement {
    known_rule *rule;                   /* NULL: effect */
    rp_effect effect;
} judgement;

static const known_module *find_module(const char *name)
{
    for (apr_size_t i = 0; i < sizeof(modules) / sizeof(modules[0]); i++) {
        if (!strcmp(modules[i].name, name))
            return &modules[i];
    }
    return NULL;
}

static int names_directive(const char *list, const char *name)
{
    apr_size_t len = strlen(name);

    if (!strcmp(list, "*"))
        return 1;
    for (const char *at = strchr(list, ' '); at && at[1]; at = strchr(at + 1, ' ')) {
        if (!strncasecmp(at + 1, name, len) && at[len + 1] == ' ')
            return 1;
    }
    return 0;
}

/** RProxyPass makes routes, the directives for servers hold for all of their requests. */
static rp_effect effect_of_ours(const char *name)
{
    static const char routes[] =
        " RProxyAllowTarget RProxyEncodedSlashes RProxyEngine RProxyEngineThreads "
        "RProxyMetricsListen RProxyPass RProxyPassMatch RProxyResolver RProxyTrustedProxy ";

    return names_directive(routes, name) ? RP_EFFECT_NONE : RP_EFFECT_SETTING;
}

static judgement judge_for(const module *owner, const char *name)
{
    const known_module *known = find_module(owner->name);

    if (owner == &rproxy_module)
        return (judgement){ NULL, effect_of_ours(name) };
    /* The engine keeps this one too, as the sections of the whole route have it. */
    if (!strcmp(owner->name, "core.c") && !strcasecmp(name, "LimitRequestBody"))
        return (judgement){ NULL, RP_EFFECT_SETTING };
    for (apr_size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        if (!strcmp(rules[i].module, owner->name) && !strcasecmp(rules[i].name, name))
            return (judgement){ rules[i].rule, RP_EFFECT_PIPELINE };
    }
    return (judgement){ NULL, neutral_if(known && names_directive(known->neutral, name)) };
}

/** Several modules may have a directive of this name, and get it in turn: neutral it is if it is so
 * to each of them. */
static judgement judge(const char *name)
{
    judgement result = { NULL, RP_EFFECT_PIPELINE };
    module *owner = ap_top_module;
    int owners = 0;

    for (; ap_find_command_in_modules(name, &owner); owner = owner->next) {
        judgement one = judge_for(owner, name);

        if (owners++ == 0 || (!one.rule && one.effect != RP_EFFECT_NONE))
            result = one;
        else if (one.rule)
            result = result.rule || result.effect != RP_EFFECT_NONE
                     ? (judgement){ NULL, RP_EFFECT_PIPELINE } : one;
    }
    return result;
}

int rp_known_module(const module *loaded)
{
    return loaded == &rproxy_module || find_module(loaded->name) != NULL;
}

rp_effect rp_known_effect(apr_pool_t *pool, apr_hash_t *cache, const ap_directive_t *directive,
                          int in_section, const rp_log_facts *log)
{
    judgement *known = apr_hash_get(cache, directive->directive, APR_HASH_KEY_STRING);
    known_place place = { pool, directive->args, in_section, log };

    if (!known) {
        known = apr_palloc(pool, sizeof(*known));
        *known = judge(directive->directive);
        apr_hash_set(cache, directive->directive, APR_HASH_KEY_STRING, known);
    }
    return known->rule ? known->rule(&place) : known->effect;
}
