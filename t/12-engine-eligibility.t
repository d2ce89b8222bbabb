#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Which configurations the engine serves, and what is told about those that it doesn't.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;

my @engine = (lanes => ['engine']);
my $B = 'http://127.0.0.1:1/';
my $vhost = qr/virtual host www\.example\.test on /;
my $main = qr/main server /;

sub in_location { my ($path, @lines) = @_; return ("<Location $path>", @lines, '</Location>') }

# What httpd -t prints of one server: the lane of each route by its path, and the guards.
sub explained {
    my ($t, $server) = @_;
    my ($code, $output) = $t->httpd_test('-DRPROXY_EXPLAIN');
    is($code, 0, 'exit code') or diag($output);
    my ($section) = $output =~ /^(?:$server).*\n((?: .*\n)*)/m;
    my (%lane, $guards);
    for (split /\n/, $section // '') {
        $lane{$1} = $2 if /^  \d+\. (?:regex )?(\S+) -> \S+?; (.*) \([^()]*\)$/;
        $guards = $1 if /^  the pipeline takes: (.*)/;
    }
    return (\%lane, $guards);
}

# Replaces the virtual host's lines; server => [...] are the main server's.
sub configure {
    my ($t, $lines, %options) = @_;
    $t->clear_config;
    $t->server_config(@{ $options{server} // [] });
    $t->config(ref $lines ? @$lines : $lines);
    return $t;
}

sub name_of { my ($lines) = @_; return ref $lines ? join(' / ', @$lines) : $lines }

# The engine has the route of /, and these guards (regex), or none.
sub engine {
    my ($t, $lines, %options) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my @lines = (ref $lines ? @$lines : $lines, "RProxyPass / $B");
    my ($lane, $guards) = explained(configure($t, \@lines, %options), $vhost);
    is($lane->{'/'}, 'engine lane', 'engine: ' . name_of($options{server} // $lines));
    return $options{guards} ? like($guards // '', $options{guards}, 'guards')
                            : is($guards, undef, 'no guards');
}

# The pipeline has it, and says why first.
sub pipeline {
    my ($t, $lines, $reason, %options) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my @lines = (ref $lines ? @$lines : $lines, "RProxyPass / $B");
    my ($lane) = explained(configure($t, \@lines, %options), $vhost);
    return like($lane->{'/'} // '', qr/^pipeline lane, parked; not the engine: $reason/,
        'pipeline: ' . name_of($options{server} // $lines));
}

# ---- what nearly every server has -------------------------------------------------------------

behaviour 'what does not change a proxied request leaves it to the engine', @engine, sub {
    my ($t) = @_;
    $t->extra_modules(qw(alias dir mime negotiation autoindex env setenvif deflate headers expires
        rewrite reqtimeout status filter access_compat cgid userdir info actions));
    engine($t, ['ErrorDocument 404 /missing.html', 'ErrorLog logs/own', 'LogLevel debug',
        'ServerAdmin a@example.test', 'ServerAlias other.example.test', 'ServerSignature Off']);
    engine($t, ['KeepAlive On', 'KeepAliveTimeout 3', 'MaxKeepAliveRequests 10', 'Timeout 30',
        'LimitRequestLine 4096', 'LimitRequestFields 50', 'LimitRequestFieldSize 4096',
        'LimitRequestBody 1000']);
    engine($t, ['UseCanonicalName Off', 'TraceEnable off', 'HttpProtocolOptions Strict Require1.0',
        'MergeSlashes Off', 'AllowEncodedSlashes NoDecode', 'HostnameLookups Off',
        'AddDefaultCharset Off', 'RLimitCPU 10']);
    engine($t, [], server => ['ServerTokens Prod', 'ExtendedStatus On', 'Mutex default',
        'AcceptFilter http none', 'FileETag None', 'AddOutputFilter DEFLATE .html']);
    engine($t, ['DocumentRoot /srv/www', 'DirectoryIndex index.html', 'IndexOptions FancyIndexing',
        'AddType text/x-test .test', 'AddEncoding x-gzip .gz', 'LanguagePriority en de',
        'UserDir public_html', 'FallbackResource /index.php']);
    engine($t, ['Alias /icons/ /usr/share/icons/', 'ScriptAlias /cgi-bin/ /usr/lib/cgi-bin/',
        'Redirect /old /new', 'RedirectMatch ^/older /new']);
    engine($t, ['<Directory /srv>', 'Options Indexes', 'AllowOverride All',
        'Require all denied', 'RewriteEngine on', '</Directory>', '<Files ".ht*">',
        'Require all denied', '</Files>', '<FilesMatch "\.cgi$">', 'SetHandler cgi-script',
        '</FilesMatch>']);
    engine($t, [in_location('/', 'Require all granted', 'Options None')]);
    engine($t, ['<IfModule mod_alias.c>', '<IfDefine !NOTHING>', 'Timeout 5', '</IfDefine>',
        '</IfModule>']);
    engine($t, ['RewriteEngine off', 'RewriteRule ^/a /b']);
    engine($t, ['ExpiresByType image/png A3600', 'ExpiresActive off', 'DeflateCompressionLevel 9']);
    engine($t, ['SetEnv APPLICATION live', 'PassEnv PATH', 'UnsetEnv LANG']);
    engine($t, ['LogFormat "%h %>s %b %D %{User-Agent}i %{rproxy-lane}e %{X-Id}o" own',
        'CustomLog logs/own own', 'TransferLog logs/other'], server => ['BufferedLogs On']);
    engine($t, ['RequestReadTimeout header=10-20,MinRate=100 body=5']);
};

my @setenvif_debian = (
    'BrowserMatch "Mozilla/2" nokeepalive',
    'BrowserMatch "MSIE 4\.0b2;" nokeepalive downgrade-1.0 force-response-1.0',
    'BrowserMatch "RealPlayer 4\.0" force-response-1.0',
    'BrowserMatch "Java/1\.0" force-response-1.0', 'BrowserMatch "JDK/1\.0" force-response-1.0',
    'BrowserMatch "^WebDrive" redirect-carefully',
    'BrowserMatch "^WebDAVFS/1.[01234]" redirect-carefully',
    'BrowserMatch "^gnome-vfs/1.0" redirect-carefully',
);

behaviour 'what Debian enables as it comes leaves requests to the engine', @engine, sub {
    my ($t) = @_;
    $t->extra_modules(qw(access_compat alias auth_basic authn_core authn_file authz_user autoindex
        deflate dir env filter mime negotiation reqtimeout setenvif status));
    engine($t, [], guards => qr{^/server-status \(\S+:\d+\), BrowserMatch "Mozilla/2" nokeepalive},
        server => [
        'Alias /icons/ "/usr/share/apache2/icons/"', '<Directory "/usr/share/apache2/icons">',
        'Options FollowSymlinks', 'AllowOverride None', 'Require all granted', '</Directory>',
        'IndexOptions FancyIndexing VersionSort', 'AddIconByEncoding (CMP,/icons/x.gif) x-gzip',
        'IndexIgnore .??* *~', 'DirectoryIndex index.html', 'AddType application/x-gz .gz',
        'AddLanguage de .de', 'AddHandler type-map var', 'AddOutputFilter INCLUDES .shtml',
        'LanguagePriority en', 'ForceLanguagePriority Prefer Fallback',
        'RequestReadTimeout header=20-40,minrate=500', 'RequestReadTimeout body=10,minrate=500',
        @setenvif_debian, in_location('/server-status', 'SetHandler server-status',
            'Require local'),
        'ExtendedStatus On', 'ServerTokens OS', 'ServerSignature On', 'TraceEnable Off',
        '<FilesMatch "^\.ht">', 'Require all denied', '</FilesMatch>', 'Timeout 300',
        'KeepAlive On', 'MaxKeepAliveRequests 100', 'KeepAliveTimeout 5', 'HostnameLookups Off',
        'LogFormat "%v:%p %h %l %u %t \"%r\" %>s %O \"%{Referer}i\" \"%{User-Agent}i\"" vhosts',
        'CustomLog logs/other_vhosts_access.log vhosts',
        ]);
    pipeline($t, [], qr/AddOutputFilterByType DEFLATE text\/html/,
        server => ['AddOutputFilterByType DEFLATE text/html']);
};

behaviour 'TLS and HTTP/2 as usually configured leave requests to the engine', @engine, sub {
    my ($t) = @_;
    $t->extra_modules(qw(ssl http2 socache_shmcb));
    engine($t, [], server => ['SSLSessionCache shmcb:logs/cache', 'SSLProtocol all -TLSv1.1',
        'SSLCipherSuite HIGH', 'SSLHonorCipherOrder off', 'SSLSessionTickets off',
        'SSLStrictSNIVHostCheck on', 'Protocols h2 http/1.1', 'H2Push off',
        '<FilesMatch "\.php$">', 'SSLOptions +StdEnvVars', '</FilesMatch>']);
    engine($t, ['SSLEngine off', 'SSLOptions +StdEnvVars', 'SSLVerifyClient none']);
    pipeline($t, 'SSLOptions +FakeBasicAuth', qr/SSLOptions \+FakeBasicAuth \(\S+:\d+\)/);
    pipeline($t, 'SSLUserName SSL_CLIENT_S_DN_CN', qr/SSLUserName/);
    pipeline($t, [in_location('/', 'SSLRequireSSL')], qr/SSLRequireSSL/);
    pipeline($t, ['LogFormat "%{SSL_PROTOCOL}e" own', 'SSLOptions +StdEnvVars'],
        qr/a log format shows %\{SSL_PROTOCOL\}e/);
    engine($t, [in_location('/private', 'SSLVerifyClient require')], guards => qr{^/private \(});
};

# ---- reasons ----------------------------------------------------------------------------------

behaviour 'a directive that may change requests is a reason, with its place', @engine, sub {
    my ($t) = @_;
    $t->extra_modules(qw(headers env setenvif rewrite expires filter deflate remoteip proxy
        proxy_http cache cache_disk alias authn_core logio));
    configure($t, ["RProxyPass / $B", 'Header edit X-Frame-Options DENY no']);
    my ($lane) = explained($t, $vhost);
    my $place = $t->conf_file . ':' . $t->config_line(qr/^Header/);
    is($lane->{'/'}, 'pipeline lane, parked; not the engine: Header edit X-Frame-Options DENY no '
            . "($place)");
    pipeline($t, 'RewriteEngine on', qr/RewriteEngine on/);
    pipeline($t, 'ExpiresActive on', qr/ExpiresActive on/);
    pipeline($t, 'SetOutputFilter DEFLATE', qr/SetOutputFilter DEFLATE/);
    pipeline($t, 'SetInputFilter DEFLATE', qr/SetInputFilter/);
    pipeline($t, 'RemoteIPHeader X-Forwarded-For', qr/RemoteIPHeader/);
    pipeline($t, 'AddDefaultCharset UTF-8', qr/AddDefaultCharset UTF-8/);
    pipeline($t, 'HostnameLookups On', qr/HostnameLookups On/);
    pipeline($t, 'HttpProtocolOptions Unsafe', qr/HttpProtocolOptions Unsafe/);
    pipeline($t, 'StrictHostCheck On', qr/StrictHostCheck/);
    pipeline($t, 'ServerPath /old', qr/ServerPath/);
    pipeline($t, 'CacheEnable disk /', qr/CacheEnable disk/);
    pipeline($t, 'SetEnv force-response-1.0', qr/SetEnv force-response-1\.0/);
    pipeline($t, ['SetEnv TEAM red', 'LogFormat "%{TEAM}e" own'], qr/SetEnv TEAM red/);
    pipeline($t, 'CustomLog logs/own common env=!dontlog', qr/CustomLog .* env=!dontlog/);
    pipeline($t, 'CustomLog logs/own common "expr=%{REQUEST_STATUS} >= 400"', qr/CustomLog/);
    pipeline($t, 'LogIOTrackTTFB ON', qr/LogIOTrackTTFB ON/);
    pipeline($t, 'SetEnvIf Remote_Addr ^10\. internal', qr/SetEnvIf Remote_Addr/);
    pipeline($t, 'SetEnvIf ^X-Any . any', qr/SetEnvIf \^X-Any/);
    pipeline($t, 'SetEnvIf UNIQUE_ID . id', qr/SetEnvIf UNIQUE_ID/);
    pipeline($t, 'SetEnvIf Authorization "(.*)" HTTP_AUTHORIZATION=$1', qr/SetEnvIf Authorization/);
    pipeline($t, 'SetEnvIfExpr true always', qr/SetEnvIfExpr/);
    pipeline($t, 'ProxyRequests On', qr/ProxyRequests On/);
    pipeline($t, "ProxyPass / http://127.0.0.1:2/", qr/ProxyPass \/ http/);
    pipeline($t, ['<If "-n %{QUERY_STRING}">', 'RProxyTimeout total=1s', '</If>'],
        qr/<If -n %\{QUERY_STRING\}>|<If "-n %\{QUERY_STRING\}">/);
    pipeline($t, [], qr/Header echo A/, server => ['Header echo A']);
    pipeline($t, [in_location('/', 'Require local')], qr/Require local/);
    pipeline($t, [in_location('/', 'Redirect /x /y')], qr/Redirect \/x \/y/);
    pipeline($t, [in_location('/', '<Limit POST>', 'Require all denied', '</Limit>')],
        qr/Require all denied/);
    pipeline($t, [in_location('/', '<RequireAny>', 'Require all granted', '</RequireAny>')],
        qr/<RequireAny>/);
    pipeline($t, ['Header echo A', 'RewriteEngine on', 'Header set A b', 'Header echo C'],
        qr/Header echo A \(\S+\) and 2 more/);
};

behaviour 'fields with constant values are the engine\'s to set, others are mod_headers\'', @engine,
    sub {
    my ($t) = @_;
    $t->extra_modules('headers');
    my @simple = ('set X-A b', 'SetIfEmpty X-A: b', 'add X-A "b c"', 'append X-A 100%%',
        'unset X-A');
    engine($t, [map { "Header $_" } @simple], server => [map { "Header $_" } @simple]);
    engine($t, [map { "Header onsuccess $_" } @simple]);
    engine($t, [map { "Header always $_" } @simple]);
    engine($t, [map { "RequestHeader $_" } @simple]);
    engine($t, [in_location('/', map { ("Header $_", "RequestHeader $_") } @simple)]);
    engine($t, ['Header set Strict-Transport-Security "max-age=63072000; includeSubDomains"',
        'Header always set X-Frame-Options DENY', 'Header always append Cache-Control no-transform',
        'Header unset X-Powered-By', 'RequestHeader set X-Forwarded-Proto https',
        'RequestHeader unset Accept-Encoding', 'RequestHeader set Content-Type text/plain',
        'Header set Content-Encoding identity']);
    pipeline($t, "Header $_", qr/Header \Q$_\E \(/) for 'set A %D', 'set A b early',
        'set A b env=c', 'set A expr=%{REQUEST_URI}', 'unset A env=!c', 'merge A b', 'echo A',
        'edit A b c', 'edit* A b c', 'always edit A b c', 'note A b', 'set A b\\nc';
    pipeline($t, "RequestHeader $_", qr/RequestHeader \Q$_\E \(/) for 'set A %{SSL_PROTOCOL}s',
        'set A b early', 'edit A b c', 'merge A b';
    my @framing = qw(Connection Content-Length Keep-Alive TE Trailer Transfer-Encoding Upgrade);
    pipeline($t, "Header unset $_", qr/Header unset $_/) for @framing, qw(Content-Type Date Server
        Vary);
    pipeline($t, "RequestHeader unset $_", qr/RequestHeader unset $_/) for @framing, qw(Host
        Expect);
};

behaviour 'rules for fields in sections are merged where they hold for a whole route', @engine,
    sub {
    my ($t) = @_;
    $t->extra_modules('headers');
    configure($t, [in_location('/app', "RProxyPass $B", 'Header set A b'),
        in_location('/app/deep', 'RequestHeader unset C'),
        in_location('/other/', "RProxyPass $B", 'Header set A b'),
        in_location('/edited', "RProxyPass $B", 'Header set A b', 'Header edit A b c'),
        "RProxyPass / $B"]);
    my ($lane, $guards) = explained($t, $vhost);
    is($lane->{$_}, 'engine lane', $_) for '/app', '/other/', '/';
    like($lane->{'/edited'}, qr/not the engine: Header edit A b c/);
    like($guards, qr{^/app/deep \([^,]*\), /other alone \([^,]*\), /edited \([^,]*\)$}, 'guards');
};

behaviour 'a module that is not known is a reason', @engine, sub {
    my ($t) = @_;
    $t->extra_modules('unique_id');
    pipeline($t, [], qr/module mod_unique_id\.c is not known to be neutral/);
};

behaviour 'rules with conditions are the pipeline\'s, and those that compete with them', @engine,
    sub {
    my ($t) = @_;
    configure($t, [
        "RProxyPass /a $B if=true", "RProxyPass /a/ http://127.0.0.1:2/",
        "RProxyPass /b $B weight=1", "RProxyPass /b http://127.0.0.1:2/ weight=2",
        "RProxyPassMatch ^/c/(.*)\$ http://127.0.0.1:1/\$1", 'RProxyRewrite ^/x /y',
        'RProxyReverse /x /y', 'RProxyCookiePath /x /y', 'RProxyErrorOverride on',
        'RProxyPass /d !', "RProxyPass / $B",
    ]);
    my ($lane) = explained($t, $vhost);
    like($lane->{'/a/'}, qr/^pipeline lane.*not the engine: if=true/);
    is($lane->{$_}, 'engine lane', $_) for '^/c/(.*)$', '/';
    my (undef, $output) = $t->httpd_test('-DRPROXY_EXPLAIN');
    like($output, qr{/a -> \S+, if true; pipeline lane});
    like($output, qr{/b -> \S+, weight 1; engine lane});
    like($output, qr{/d is not proxied \(});
};

# ---- sections and guards ----------------------------------------------------------------------

behaviour 'what is for a part of the requests only guards that part', @engine, sub {
    my ($t) = @_;
    $t->extra_modules(qw(status setenvif proxy proxy_http headers));
    engine($t, [in_location('/server-status', 'SetHandler server-status')],
        guards => qr{^/server-status \(\S+:\d+\)$});
    engine($t, [in_location('/*/private', 'Require local')], guards => qr{^/\*/private \(});
    engine($t, ['<LocationMatch "\.php$">', 'Require local', '</LocationMatch>'],
        guards => qr{^regex \\\.php\$ \(});
    engine($t, ['<Location ~ "/x/">', 'Header set A b', '</Location>'],
        guards => qr{^regex /x/ \(});
    engine($t, 'ProxyPass /legacy http://127.0.0.1:2/', guards => qr{^/legacy \(});
    engine($t, 'ProxyPassMatch ^/legacy http://127.0.0.1:2/', guards => qr{^regex \^/legacy \(});
    engine($t, 'SetEnvIf Request_URI "^/health$" dontlog', guards => qr{^SetEnvIf Request_URI});
    engine($t, 'SetEnvIfNoCase X-Forwarded-Proto https HTTPS=on', guards => qr{^SetEnvIfNoCase X-});
    engine($t, 'SetEnvIf Request_Method PURGE purge', guards => qr{^SetEnvIf Request_Method PURGE});
    engine($t, [in_location('/x', 'Require all granted', 'ErrorDocument 404 nothing')]);
    configure($t, ["RProxyPass /app $B",
        in_location('/server-status', 'SetHandler server-status'),
        in_location('/app', 'Header echo A')]);
    my ($lane, $guards) = explained($t, $vhost);
    like($lane->{'/app'}, qr/Header echo A/);
    is($guards, undef, 'guards without a route of the engine');
    configure($t, ["RProxyPass /app $B",
        in_location('/server-status', 'SetHandler server-status'),
        in_location('/appendix', 'Header set A b'), in_location('/app/x', 'Header set A b')]);
    ($lane, $guards) = explained($t, $vhost);
    is($lane->{'/app'}, 'engine lane');
    like($guards, qr{^/app/x \([^,]*\)$}, 'no guards beside the route');
};

behaviour 'settings in sections are merged where they hold for a whole route', @engine, sub {
    my ($t) = @_;
    configure($t, [in_location('/app', "RProxyPass $B", 'RProxyTimeout total=3s'),
        in_location('/', 'RProxyPreserveHost off'),
        in_location('/app/deep', 'RProxyUpgrade off'),
        "RProxyPass / http://127.0.0.1:2/"]);
    my ($lane, $guards) = explained($t, $vhost);
    is($lane->{$_}, 'engine lane', $_) for '/app', '/';
    like($guards, qr{^/app/deep \([^,]*\)$}, 'only the part without a route of its own');
    configure($t, [in_location('/app/', "RProxyPass $B", 'RProxyTimeout total=3s')]);
    ($lane, $guards) = explained($t, $vhost);
    is($lane->{'/app/'}, 'engine lane');
    like($guards, qr{^/app alone \([^,]*\)$}, '/app is a path of the route, not of the section');
};

behaviour 'the main server\'s directives and sections hold for virtual hosts too', @engine, sub {
    my ($t) = @_;
    $t->extra_modules(qw(headers status));
    $t->server_config(in_location('/server-status', 'SetHandler server-status'),
        "RProxyPass /common $B");
    $t->config("RProxyPass / $B", in_location('/own', 'Require local'));
    $t->vhost('bare.example.test', []);
    $t->vhost('headers.example.test', ['Header echo A', "RProxyPass / $B"]);
    my ($lane, $guards) = explained($t, $vhost);
    is_deeply($lane, { '/common' => 'engine lane', '/' => 'engine lane' });
    like($guards, qr{^/server-status \(\S+\), /own \(\S+\)$});
    ($lane, $guards) = explained($t, qr/virtual host bare/);
    is_deeply($lane, { '/common' => 'engine lane' });
    is($guards, undef);
    ($lane) = explained($t, qr/virtual host headers/);
    like($lane->{'/'}, qr/Header echo A/);
    like($lane->{'/common'}, qr/Header echo A/);
    ($lane) = explained($t, $main);
    is_deeply($lane, { '/common' => 'engine lane' });
};

# ---- HTTP/2 -----------------------------------------------------------------------------------

# Who serves HTTP/2 clients of the server, by RPROXY_EXPLAIN.
sub http2_of {
    my ($t, $server) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my ($code, $output) = $t->httpd_test('-DRPROXY_EXPLAIN');
    is($code, 0, 'exit code') or diag($output);
    my ($section) = $output =~ /^(?:$server).*\n((?: .*\n)*)/m;
    return ($section // '') =~ m{^  HTTP/2: (.*)}m ? $1 : undef;
}

# With these lines beside a rule for /: the engine's, or for this reason not.
sub http2 {
    my ($t, $lines, $reason, %options) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    configure($t, ['Protocols h2 h2c http/1.1', "RProxyPass / $B", ref $lines ? @$lines : $lines],
        %options);
    my $text = http2_of($t, $vhost);
    my $name = name_of($options{server} // $lines);
    return is($text, 'engine', "engine: $name") if !$reason;
    return like($text, qr{^mod_http2 \($reason\)$}, "mod_http2: $name");
}

behaviour 'HTTP/2 is the engine\'s where every request is', @engine, sub {
    my ($t) = @_;
    $t->extra_modules(qw(http2 headers alias));
    http2($t, []);
    http2($t, ["RProxyPass /x $B weight=1", "RProxyPass /x $B weight=2",
        'RProxyPassMatch ^/y(.*)$ http://127.0.0.1:2/$1', 'RProxyErrorOverride on',
        'Header always set X-A b', 'RequestHeader unset C', 'AllowEncodedSlashes On',
        'LimitRequestBody 1000', 'TraceEnable off', 'HttpProtocolOptions RegisteredMethods',
        'Redirect /old /new', 'Alias /icons /srv/icons', 'ServerSignature On']);
    http2($t, ['<Directory /srv>', 'ErrorDocument 404 x', 'Require all denied', '</Directory>',
        in_location('/', 'Header set A b', 'Require all granted'),
        in_location('/app', "RProxyPass $B", 'RProxyTimeout total=3s')]);
    http2($t, ['ErrorDocument 404 Default'], undef, server => ['ErrorDocument 500 default']);
    $t->access_format('%h %{HTTP2}e %H %{rproxy-lane}e');
    http2($t, []);
};

behaviour 'HTTP/2 is not the engine\'s where a rule is not', @engine, sub {
    my ($t) = @_;
    $t->extra_modules(qw(http2 headers));
    my $at = qr/\(\S+:\d+\)/;
    http2($t, ['RProxyPass /own !'], qr{/own is not proxied $at});
    http2($t, [in_location('/own', 'RProxyPass !')], qr{/own is not proxied $at});
    http2($t, ["RProxyPass /x $B if=true"], qr{/x: if=true $at});
    http2($t, ['RProxyPassMatch ^/x/(.*)$ http://127.0.0.1:2/$1',
        'RProxyPassMatch ^/y http://127.0.0.1:2/ if=true'], qr{regex \^/y: if=true $at});
    http2($t, [in_location('/x', "RProxyPass $B", 'Header echo A')], qr{/x: Header echo A $at});
    http2($t, ['Header echo A', 'Header echo B'], qr{/: Header echo A $at});
    http2($t, ['RProxyEngine off'], qr{/: RProxyEngine off});
    http2($t, [], qr{/: Header echo A $at}, server => ['Header echo A']);
};

behaviour 'HTTP/2 is not the engine\'s where some path has no rule', @engine, sub {
    my ($t) = @_;
    $t->extra_modules('http2');
    my $reason = 'mod_http2 (no rule is for /, so that not every path has one)';
    for (["RProxyPass /x $B"], ['RProxyPassMatch ^/(.*)$ http://127.0.0.1:1/$1']) {
        configure($t, ['Protocols h2 http/1.1', @$_]);
        is(http2_of($t, $vhost), $reason, name_of($_));
    }
    configure($t, ["RProxyPass / $B weight=0", "RProxyPass / $B weight=1", 'Protocols h2']);
    is(http2_of($t, $vhost), 'engine', 'one of those for / has a share');
    configure($t, 'Protocols h2 http/1.1');
    is(http2_of($t, $vhost), 'mod_http2 (it has no rules)');
};

behaviour 'HTTP/2 is not the engine\'s where there are guards', @engine, sub {
    my ($t) = @_;
    $t->extra_modules(qw(http2 headers setenvif status));
    my $at = qr/\(\S+:\d+\)/;
    http2($t, [in_location('/part', 'Header echo A')], qr{the pipeline takes /part $at});
    http2($t, [in_location('/part', 'Header set A b')], qr{the pipeline takes /part $at});
    http2($t, ['BrowserMatch ^Old seen', 'BrowserMatch ^Older seen'],
        qr{the pipeline takes BrowserMatch \^Old seen $at});
    http2($t, [], qr{the pipeline takes /server-status $at},
        server => [in_location('/server-status', 'SetHandler server-status')]);
    http2($t, [in_location('/app/', "RProxyPass $B", 'RProxyForwarded off')],
        qr{the pipeline takes /app alone $at});
};

behaviour 'what SetEnvIf sets for HTTP/1.x and for filters doesn\'t keep HTTP/2 away', @engine, sub {
    my ($t) = @_;
    $t->extra_modules(qw(http2 setenvif ssl));
    my $at = qr/\(\S+:\d+\)/;
    my $old = 'BrowserMatch ^Old nokeepalive';
    http2($t, [], undef, server => \@setenvif_debian);
    http2($t, ['SetEnvIf User-Agent ".*MSIE.*" nokeepalive ssl-unclean-shutdown downgrade-1.0 '
            . 'force-response-1.0', 'BrowserMatchNoCase \bMSIE !no-gzip !gzip-only-text/html',
        'SetEnvIfNoCase Request_URI "\.(?:gif|jpe?g|png)$" no-gzip=1 no-brotli']);
    for ("$old seen", 'BrowserMatch ^Old force-no-vary', 'BrowserMatch ^Old !force-no-vary',
        'BrowserMatch ^Old ssl-accurate-shutdown') {
        http2($t, $_, qr{the pipeline takes \Q$_\E $at});
    }
    # Another line makes something of it.
    my @test = 'SetEnvIf NoKeepAlive 1 own';
    http2($t, [@test], qr{the pipeline takes \Q$old\E $at}, server => [$old]);
    http2($t, [$old, @test], qr{the pipeline takes \Q$old\E $at});
    for ('%{nokeepalive}e', '%{ENV:NoKeepAlive}x') {
        http2($t, [$old, qq{LogFormat "$_" own}], qr{the pipeline takes \Q$old\E $at});
    }
    http2($t, [$old, 'LogFormat "%{no-gzip}e" own']);
};

my $STATUS = '/server-status';
my @status = in_location($STATUS, 'SetHandler server-status', 'Require local');

# What RPROXY_EXPLAIN says of HTTP/2 with these lines beside a rule for /.
sub http2_text {
    my ($t, $lines, %options) = @_;
    configure($t, ['Protocols h2 http/1.1', 'SSLEngine on', @$lines, "RProxyPass / $B"], %options);
    return http2_of($t, $vhost);
}

behaviour 'for pages about the server itself the engine asks for HTTP/1.1', @engine, sub {
    my ($t) = @_;
    $t->extra_modules(qw(http2 ssl status headers));
    my $at = qr/\(\S+:\d+\)/;
    my $yes = qr{^engine; in HTTP/1\.1 /server-status $at$};
    like(http2_text($t, \@status), $yes, 'of the virtual host');
    like(http2_text($t, [], server => \@status), $yes, 'of the main server');
    like(http2_text($t, [], server => ['SSLEngine on', @status]), $yes, 'with its SSLEngine');
    like(http2_text($t, ["RProxyPass $STATUS !"], server => \@status), $yes, 'that is not proxied');
    like(http2_text($t, [in_location($STATUS, 'SetHandler server-status', 'RProxyPass !')]), $yes,
        'by its section');
    like(http2_text($t, [in_location("$STATUS/", 'Require ip 10', 'Header set A b')],
        server => \@status), qr{^engine; in HTTP/1\.1 /server-status $at, /server-status/ $at$},
        'with other sections of its path');
    for (qw(server-info balancer-manager ldap-status md-status rproxy-manager)) {
        like(http2_text($t, [in_location('/x', "SetHandler \u$_")]),
            qr{^engine; in HTTP/1\.1 /x $at$}, $_);
    }
    $t->vhost('near.example.test', [], port => $t->port);
    like(http2_of($t, $vhost), qr{^mod_http2 \(near\.example\.test is on the same address: },
        'others on the address count');
};

behaviour 'and for nothing else', @engine, sub {
    my ($t) = @_;
    $t->extra_modules(qw(http2 ssl status alias setenvif));
    my $at = qr/\(\S+:\d+\)/;
    my $barred = sub {
        my ($lines, $reason, %options) = @_;
        local $Test::Builder::Level = $Test::Builder::Level + 1;
        return like(http2_text($t, $lines, %options), qr{^mod_http2 \($reason\)$},
            join ' / ', @$lines);
    };
    my $takes = qr{the pipeline takes /server-status $at};
    $barred->(['SSLEngine off', @status], $takes);
    $barred->(['SSLEngine off'], $takes, server => ['SSLEngine on', @status]);
    $barred->([in_location('/x', 'SetHandler default-handler')], qr{the pipeline takes /x $at});
    $barred->([in_location('/x', 'Require local')], qr{the pipeline takes /x $at});
    $barred->([@status, in_location($STATUS, 'SetHandler none')], $takes);
    $barred->([@status, in_location("$STATUS/app", 'Require local')],
        qr{the pipeline takes /server-status/app $at});
    $barred->([@status, 'Alias /icons/ /srv/icons/', 'RProxyPass /icons !'],
        qr{/icons is not proxied $at});
    $barred->([@status, 'RProxyPass /server !'], qr{/server is not proxied $at});
    $barred->([@status, "RProxyPass $STATUS $B"], qr{/server-status: SetHandler server-status $at});
    $barred->([in_location('/*-status', 'SetHandler server-status')],
        qr{the pipeline takes /\*-status $at});
    $barred->(['<LocationMatch "-status$">', 'SetHandler server-status', '</LocationMatch>'],
        qr{the pipeline takes regex -status\$ $at});
    $barred->([@status, 'BrowserMatch ^Old seen'],
        qr{the pipeline takes BrowserMatch \^Old seen $at});
    # Without http/1.1 there is nothing to come back with.
    my @only = ('</VirtualHost>', '<VirtualHost 127.0.0.1:' . $t->listen . '>',
        'ServerName only.example.test', 'Protocols h2', 'SSLEngine on', "RProxyPass / $B", @status);
    configure($t, \@only);
    like(http2_of($t, qr/virtual host only\./), qr{^mod_http2 \($takes\)$}, 'Protocols h2');
    configure($t, [@only, "RProxyPass $STATUS !"]);
    like(http2_of($t, qr/virtual host only\./), qr{^mod_http2 \(/server-status is not proxied },
        'Protocols h2, not proxied');
};

behaviour 'HTTP/2 is not the engine\'s where ErrorDocument words errors', @engine, sub {
    my ($t) = @_;
    $t->extra_modules('http2');
    my $reason = qr/ErrorDocument 502 \/sorry \(\S+:\d+\)/;
    my @page = 'ErrorDocument 502 /sorry';
    http2($t, \@page, $reason);
    http2($t, ['ErrorDocument 404 default', @page], $reason);
    http2($t, [], $reason, server => \@page);
    http2($t, [in_location('/x', @page)], $reason);
    http2($t, ['<LocationMatch "/x$">', @page, '</LocationMatch>'], $reason);
    http2($t, [], $reason, server => [in_location('/x', @page)]);
};

behaviour 'HTTP/2 is not the engine\'s where logs show variables of mod_http2', @engine, sub {
    my ($t) = @_;
    $t->extra_modules('http2');
    $t->access_format('%h %{H2_STREAM_ID}e');
    http2($t, [], qr/a log format shows %\{H2_STREAM_ID\}e, which mod_http2 sets/);
};

behaviour 'HTTP/2 is not the engine\'s where another virtual host of the address stands in the way',
    @engine, sub {
    my ($t) = @_;
    $t->extra_modules('http2');
    my ($port, $other) = ($t->port, $t->listen);
    my @lines = ('Protocols h2c http/1.1', "RProxyPass / $B");
    my $text = sub { my ($name) = @_; return http2_of($t, qr/virtual host \Q$name\E on /) };
    configure($t, \@lines);
    $t->vhost('second.example.test', \@lines);
    $t->vhost('away.example.test', [], port => $other);
    is($text->('www.example.test'), 'engine');
    is($text->('second.example.test'), 'engine');
    is($text->('away.example.test'), undef, 'Protocols does not name it');
    $t->vhost('third.example.test', [@lines, 'RProxyPass /x !']);
    $t->vhost('fourth.example.test', ["RProxyPass /x $B"]);
    my $reason = quotemeta 'third.example.test is on the same address: /x is not proxied (';
    like($text->($_), qr/^mod_http2 \($reason/, $_) for 'www.example.test', 'second.example.test';
    like($text->('third.example.test'), qr/^mod_http2 \(\/x is not proxied \(/);
    # Two addresses, with others on each.
    configure($t, \@lines);
    $t->vhost('both.example.test', [@lines, '</VirtualHost>',
        "<VirtualHost 127.0.0.1:$port 127.0.0.1:$other>", 'ServerName two.example.test', @lines]);
    $t->vhost('away.example.test', [], port => $other);
    is($text->('www.example.test'), 'engine');
    is($text->('two.example.test'), "engine; on 127.0.0.1:$other mod_http2 "
            . '(away.example.test is on the same address: it has no rules)');
    $t->vhost('near.example.test', []);
    is($text->('two.example.test'),
        'mod_http2 (near.example.test is on the same address: it has no rules)');
};

behaviour '"*" is an address of its own', @engine, sub {
    my ($t) = @_;
    my $port = $t->port;
    my @lines = ('Protocols h2c http/1.1', "RProxyPass / $B");
    configure($t, \@lines);
    $t->vhost('any.example.test', ['</VirtualHost>', "<VirtualHost *:$port>",
        'ServerName star.example.test', '</VirtualHost>', "<VirtualHost 0.0.0.0:$port>",
        'ServerName zero.example.test', @lines, '</VirtualHost>', '<VirtualHost *>',
        'ServerName all.example.test', @lines, '</VirtualHost>',
        "<VirtualHost 127.0.0.2:$port>", 'ServerName end.example.test']);
    my $text = sub { my ($name) = @_; return http2_of($t, qr/virtual host $name\.\S+ on /) };
    like($text->('www'), qr/^not offered \(any\.example\.test is on the same address/);
    like($text->('zero'), qr/^not offered \(star\.example\.test is on the same address/);
    is($text->('all'), 'engine', 'all ports');
};

# ---- what requests see -------------------------------------------------------------------------

# Guards: not over HTTP/2, which leaves nothing to the pipeline.
behaviour 'settings of sections hold for exactly the requests in them',
    except => ['engine-h2'], sub {
    my ($t) = @_;
    my $up = $t->upstream;
    $t->config(in_location('/app/', 'RProxyPass ' . $up->url . '/', 'RProxyForwarded off'),
        in_location('/app/deep', 'RProxyPreserveHost off'), 'RProxyPass / ' . $up->url . '/');
    $t->start;
    my $own = $up->url =~ s{^http://}{}r;
    for (['/app/x', undef, $t->host], ['/app/deep', undef, $own], ['/app/deep/x', undef, $own],
        ['/app/%64eep', undef, $own], ['/app/deeper', undef, $t->host],
        ['/app', '127.0.0.1', $t->host], ['/apple', '127.0.0.1', $t->host]) {
        my ($path, $forwarded, $host) = @$_;
        is($t->get($path)->status, 200, $path);
        my $request = $up->request;
        is($request->header('X-Forwarded-For'), $forwarded, '  RProxyForwarded');
        like($request->header('Host'), qr/^\Q$host\E/, '  RProxyPreserveHost');
    }
};

behaviour 'what is for a part of the requests reaches this part', except => ['engine-h2'], sub {
    my ($t) = @_;
    $t->extra_modules(qw(headers setenvif));
    my $up = $t->upstream;
    $t->config('RProxyPass / ' . $up->url . '/', in_location('/part', 'Header set X-Part path'),
        '<LocationMatch "\.php$">', 'Header set X-Part regex', '</LocationMatch>',
        in_location('/*/wild', 'Header set X-Part wild'), 'BrowserMatch ^Old seen',
        in_location('/agent', 'Header set X-Part agent env=seen'));
    $t->start;
    my %part = ('/' => undef, '/part' => 'path', '/part/x' => 'path', '/%70art' => 'path',
        '//part' => 'path', '/x/../part' => 'path', '/part%2Fx' => 'path', '/partly' => undef,
        '/x.php' => 'regex', '/x%2Ephp?y' => 'regex', '/x.php5' => undef, '/?x.php' => undef,
        '/a/wild' => 'wild', '/a/b/wild' => undef, '/a%2Fb' => undef, '/agent' => undef);
    is($t->get($_)->header('X-Part'), $part{$_}, $_) for sort keys %part;
    is($t->get('/agent', 'User-Agent' => 'Old/1.0')->header('X-Part'), 'agent', 'User-Agent');
};

behaviour 'only guarded requests leave the engine', @engine, sub {
    my ($t) = @_;
    $t->extra_modules(qw(headers setenvif));
    my $up = $t->upstream;
    $t->access_format('%{rproxy-lane}e %U %{User-Agent}i');
    $t->config('RProxyPass / ' . $up->url . '/', in_location('/part', 'Header set X-Part yes'),
        in_location('/app', 'RProxyPass ' . $up->url . '/', 'RProxyForwarded off'),
        in_location('/app/deep', 'RProxyForwarded rfc7239'), 'BrowserMatch ^Old seen');
    $t->start;
    for (['/', 'New', 'engine'], ['/', 'Old', 'pipeline'], ['/part/x', 'New', 'pipeline'],
        ['/party', 'New', 'engine'], ['/app/x', 'New', 'engine'],
        ['/app/deep', 'New', 'pipeline']) {
        my ($path, $agent, $lane) = @$_;
        is($t->get($path, 'User-Agent' => $agent)->status, 200);
        ok($t->server->wait_access_log(qr/^$lane $path $agent$/m), "$path, $agent: $lane");
    }
};

# ---- RProxyEngine -----------------------------------------------------------------------------

behaviour 'RProxyEngine on fails where the engine cannot serve, with each reason', @engine, sub {
    my ($t) = @_;
    $t->extra_modules('headers');
    configure($t, ['RProxyEngine on', "RProxyPass / $B", "RProxyPass /x $B"]);
    my ($code, $output) = $t->httpd_test;
    is($code, 0) or diag($output);
    configure($t, ['RProxyEngine on', "RProxyPass / $B", "RProxyPass /x $B if=true",
        'Header echo A', 'HostnameLookups On', 'RProxyPass /y !']);
    ($code, $output) = $t->httpd_test;
    isnt($code, 0);
    my $file = quotemeta $t->conf_file;
    my $header = $t->config_line(qr/^Header/);
    my $hostname = $t->config_line(qr/^HostnameLookups/);
    my $reasons = qr{Header echo A \($file:$header\); HostnameLookups On \($file:$hostname\)};
    like($output, qr{RP0310: .* / -> \S+ \($file:\d+\) because of: $reasons; remove these});
    like($output, qr{RP0310: .* /x -> .*; if=true \($file});
    my $lines = () = $output =~ /RP0310/g;
    is($lines, 2, 'one line for each route');
    unlike($output, qr/Syntax OK/);
    configure($t, ['RProxyEngine auto', "RProxyPass / $B", 'Header echo A'],
        server => ['RProxyEngine on']);
    ($code, $output) = $t->httpd_test;
    is($code, 0, 'a virtual host takes it back') or diag($output);
    configure($t, ["RProxyPass / $B", 'Header echo A'], server => ['RProxyEngine on']);
    ($code, $output) = $t->httpd_test;
    isnt($code, 0, 'a virtual host inherits it');
};

behaviour 'RProxyEngine off leaves a server to the pipeline', @engine, sub {
    my ($t) = @_;
    pipeline($t, 'RProxyEngine off', qr/RProxyEngine off$/);
    pipeline($t, [], qr/RProxyEngine off$/, server => ['RProxyEngine off']);
    engine($t, 'RProxyEngine auto', server => ['RProxyEngine off']);
};

behaviour 'wrong values of the directives are refused', lanes => ['event'], sub {
    my ($t) = @_;
    for (['RProxyEngine maybe', qr/write auto, on or off/],
        ['RProxyEngineThreads 2', qr/serves all virtual hosts/],
        [in_location('/x', 'RProxyEngine off'), qr/holds for a whole server/]) {
        my $message = pop @$_;
        configure($t, $_);
        my ($code, $output) = $t->httpd_test;
        isnt($code, 0);
        like($output, $message);
    }
    for my $count (0, 65, 'two') {
        configure($t, [], server => ["RProxyEngineThreads $count"]);
        my ($code, $output) = $t->httpd_test;
        isnt($code, 0, "count $count");
        like($output, qr/RProxyEngineThreads/);
    }
    configure($t, [], server => ['RProxyEngineThreads 64']);
    my ($code, $output) = $t->httpd_test;
    is($code, 0) or diag($output);
};

behaviour 'without the event MPM, or in one process, there is no engine',
    lanes => ['engine', 'worker', 'prefork'], sub {
    my ($t) = @_;
    configure($t, ["RProxyPass / $B"]);
    my @debug = $t->lane eq 'engine' ? '-X' : ();
    my ($code, $output) = $t->httpd_test(@debug, '-DRPROXY_EXPLAIN');
    is($code, 0) or diag($output);
    my $reason = @debug ? 'httpd runs in a single process' : 'the MPM is not event';
    like($output, qr{/ -> .*; not the engine: $reason});
    configure($t, ["RProxyPass / $B", 'RProxyEngine on']);
    ($code, $output) = $t->httpd_test(@debug);
    isnt($code, 0);
    like($output, qr/RP0310: .* because of: $reason/);
};

behaviour 'the log says at info which lane each route has', @engine, sub {
    my ($t) = @_;
    $t->extra_modules('headers');
    $t->config("RProxyPass / $B");
    $t->vhost('headers.example.test', ["RProxyPass /x $B", 'Header echo A', 'Header echo C']);
    $t->start;
    my $log = $t->server->error_log;
    like($log, qr{RP0311: the engine serves / -> \Q$B\E \(\S+:\d+\)$}m);
    my $reasons = qr{Header echo A \(\S+\); Header echo C \(\S+\)};
    like($log, qr{RP0312: the pipeline serves /x -> \S+ \(\S+\) because of: $reasons$}m);
    my @told = $log =~ /RP0311/g;
    is(@told, 1, 'once');
    unlike($log, qr/RP031[34]/, 'nothing of HTTP/2, which nobody offers');
};

behaviour 'the log says at info who serves HTTP/2', @engine, sub {
    my ($t) = @_;
    $t->config('Protocols h2c http/1.1', "RProxyPass / $B");
    $t->vhost('other.example.test', ['Protocols h2', "RProxyPass /x $B"], port => $t->listen);
    $t->start;
    my $log = $t->server->error_log;
    like($log, qr{RP0313: the engine serves HTTP/2 clients of www\.example\.test$}m);
    like($log,
        qr{RP0314: HTTP/2 clients of other\.example\.test: not offered \(no rule is for /, });
    my @told = $log =~ /RP031[34]/g;
    is(@told, 2, 'once for each');
};

done_testing;
