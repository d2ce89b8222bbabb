#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Which rule takes a request, and what the upstream's request line says.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;

# How a rule is found has to do with neither threads nor TLS.
without_lanes qw(worker tls);

# What is not proxied, or not always, leaves the engine without HTTP/2.
my @mixed = (except => ['engine-h2']);

# One upstream that says what it was asked for: bases in the targets tell which rule was taken.
sub started {
    my ($t, $lines) = @_;
    my $up = $t->upstream;
    $up->echo;
    my $url = $up->url;
    $t->config(map { s/\bUP\b/$url/gr } @$lines);
    $t->start;
    return $up;
}

# Asks for each path, on one connection while that lasts, and compares the target that was sent on,
# or the status where it is no 200.
sub routes {
    my ($t, @pairs) = @_;
    my $client;
    while (my ($path, $expected) = splice @pairs, 0, 2) {
        $client //= $t->client;
        my $response = $client->get($path);
        my $got = $response->status eq '200' ? $response->header('X-Target') // 'local'
                                             : $response->status;
        local $Test::Builder::Level = $Test::Builder::Level + 1;
        like($got, ref $expected ? $expected : qr/^\Q$expected\E$/, $path);
        undef $client if $response->status ne '200';
    }
    return;
}

behaviour 'the longest prefix on a segment border wins, whatever the order', @mixed, sub {
    my ($t) = @_;
    $t->file('htdocs/app/deep/er/exempt/file.txt', "local\n");
    started($t, [
        'RProxyPass / UP/root', 'RProxyPass /app/deep/er UP/deeper', 'RProxyPass /app UP/app',
        'RProxyPass /app/deep/er/exempt !', 'RProxyPass /app/deep UP/deep',
    ]);
    routes($t,
        '/' => '/root/', '/other' => '/root/other', '/app' => '/app', '/app/' => '/app/',
        '/apple' => '/root/apple', '/app/deeper' => '/app/deeper', '/app/deep' => '/deep',
        '/app/deep/error' => '/deep/error', '/app/deep/er/x' => '/deeper/x',
        '/app/deep/er' => '/deeper', '/%61pp/x' => '/app/x', '/app%2Fdeep' => '/root/app%2Fdeep',
        '/app/deep/er/exempt/file.txt' => 'local', '/app/deep/er/exempt/none' => 404);
};

behaviour 'prefix and base meet in exactly one slash', sub {
    my ($t) = @_;
    my (@lines, @pairs);
    for my $slash ('', '/') {
        for my $base ('', '/', '/b', '/b/') {
            my $prefix = '/s' . @lines;
            push @lines, "RProxyPass $prefix$slash UP$base";
            (my $plain = $base) =~ s{/$}{};
            push @pairs, $prefix => $base eq '' ? '/' : $base, "$prefix/" => "$plain/",
                "$prefix/x" => "$plain/x", "$prefix/x/" => "$plain/x/",
                "$prefix?q" => ($base eq '' ? '/' : $base) . '?q';
        }
    }
    started($t, [@lines, $t->rule_for_the_rest]);
    routes($t, @pairs);
};

behaviour 'regular expressions come first, in their order', @mixed, sub {
    my ($t) = @_;
    started($t, [
        'RProxyPass /user/12 UP/longest', 'RProxyPassMatch ^/user/(\d+)/(.*)$ UP/u/$2/by/$1',
        'RProxyPassMatch ^/user/secret !', 'RProxyPassMatch ^/user/(.+)$ UP/named/$1',
        'RProxyPass /user UP/prefix',
        q{RProxyPassMatch ^/when/(.*)$ UP/posted/$1 if="%{REQUEST_METHOD} == 'POST'"},
        'RProxyPass /when UP/got',
    ]);
    routes($t, '/user/12/a/b' => '/u/a/b/by/12', '/user/bob' => '/named/bob',
        '/user/secret' => 404, '/user/' => '/prefix/', '/user' => '/prefix',
        '/us%65r/bob' => '/named/bob', '/user/b%20b?q=%20' => '/named/b%20b?q=%20',
        '/user/7/x' => '/u/x/by/7', '/when/x' => '/got/x');
    is($t->request('POST', '/when/x', { body => 'b' })->header('X-Target'), '/posted/x');
};

behaviour 'if= decides, and the next rule or the shorter prefix gets what it leaves', @mixed, sub {
    my ($t) = @_;
    started($t, [
        q{RProxyPass /c UP/post if="%{REQUEST_METHOD} == 'POST'"},
        'RProxyPass /c UP/beta "if=%{HTTP_COOKIE} =~ /beta/"', 'RProxyPass /c UP/rest',
        q{RProxyPass /d/e UP/de if="%{QUERY_STRING} == 'in'"}, 'RProxyPass /d UP/d',
        q{RProxyPass /n ! if="-n %{HTTP:X-Local}"}, 'RProxyPass /n UP/n',
    ]);
    routes($t, '/c/x' => '/rest/x', '/d/e?in' => '/de?in', '/d/e?out' => '/d/e?out',
        '/n' => '/n');
    is($t->request('POST', '/c/x', { body => '' })->header('X-Target'), '/post/x');
    is($t->get('/c/x', Cookie => 'v=beta')->header('X-Target'), '/beta/x');
    is($t->get('/n/x', 'X-Local' => 1)->status, 404);
};

behaviour 'weight= shares the requests of one path', @mixed, sub {
    my ($t) = @_;
    started($t, [
        'MaxKeepAliveRequests 0', 'RProxyPass /w UP/one weight=1',
        'RProxyPass /w UP/three weight=3',
        'RProxyPass /w UP/never weight=0',
        'RProxyPass /v UP/a weight=1 "if=-n %{HTTP:X-A}"', 'RProxyPass /v UP/b weight=1',
    ]);
    my $client = $t->client;
    my %count = map { $_ => 0 } qw(/one /three /never /a /b);
    $count{ $client->get('/w')->header('X-Target') }++ for 1 .. 200;
    cmp_ok($count{'/one'}, '>', 15, 'about 50 of 200') or note explain \%count;
    cmp_ok($count{'/one'}, '<', 90, 'about 50 of 200') or note explain \%count;
    is($count{'/one'} + $count{'/three'}, 200, 'weight=0 takes none');
    $count{ $client->get('/v')->header('X-Target') }++ for 1 .. 10;
    is($count{'/b'}, 10, 'who is not eligible has no share');
    $count{ $client->get('/v', 'X-A' => 1)->header('X-Target') }++ for 1 .. 60;
    cmp_ok($count{'/a'}, '>', 5);
    cmp_ok($count{'/b'}, '>', 15);
};

behaviour 'virtual hosts inherit the rules of the main server and may replace them', @mixed, sub {
    my ($t) = @_;
    my $up = $t->upstream;
    $up->echo;
    my $url = $up->url;
    $t->server_config("RProxyPass /main $url/main", "RProxyPass /both $url/by-main",
        "RProxyPass /not $url/not", "RProxyPassMatch ^/re(\\d) $url/re-main/\$1");
    $t->config("RProxyPass /both $url/by-vhost", "RProxyPass /own $url/own", 'RProxyPass /not !',
        "RProxyPassMatch ^/re(\\d) $url/re-vhost/\$1");
    $t->vhost('other.test', []);
    $t->start;
    my %by_host = (
        $t->host => ['/main/x' => '/main/x', '/both' => '/by-vhost', '/own' => '/own',
            '/not' => 404, '/re1' => '/re-vhost/1'],
        'other.test' => ['/main/x' => '/main/x', '/both' => '/by-main', '/own' => 404,
            '/not' => '/not', '/re1' => '/re-main/1'],
    );
    for my $host (sort keys %by_host) {
        my @pairs = @{ $by_host{$host} };
        my %tls = $t->is_tls ? (tls => { SSL_hostname => $host, SSL_verifycn_name => $host }) : ();
        while (my ($path, $expected) = splice @pairs, 0, 2) {
            my $response = $t->request('GET', $path, { host => $host, client => {%tls} });
            is($response->status eq '200' ? $response->header('X-Target') : $response->status,
                $expected, "$host $path");
        }
    }
};

behaviour 'Location and LocationMatch are paths of rules', @mixed, sub {
    my ($t) = @_;
    started($t, [
        '<Location /loc>', 'RProxyPass UP/loc', '</Location>',
        '<Location /loc/no>', 'RProxyPass !', '</Location>',
        '<Location "/with blank">', 'RProxyPass UP/blank', '</Location>',
        '<LocationMatch "^/lm/(\w+)$">', 'RProxyPass UP/lm/$1', '</LocationMatch>',
        '<Location ~ "^/tilde">', 'RProxyPass UP/tilde', '</Location>',
    ]);
    routes($t, '/loc' => '/loc', '/loc/x' => '/loc/x', '/locx' => 404, '/loc/no/x' => 404,
        '/with%20blank/x' => '/blank/x', '/lm/word' => '/lm/word', '/lm/a/b' => 404,
        '/tilde/x' => '/tilde');
};

behaviour '<If> decides after the tables, also to exempt', @mixed, sub {
    my ($t) = @_;
    $t->file('htdocs/app/private/file.txt', "local file\n");
    started($t, [
        'RProxyPass /app UP/app',
        '<If "%{REQUEST_URI} =~ m#^/app/private#">', 'RProxyPass !', '</If>',
        q{<If "%{HTTP:X-Go} == 'a'">}, 'RProxyPass UP/whole', '</If>',
        q{<If "%{HTTP:X-Go} == 'p'">}, 'RProxyPass /part UP/new', '</If>',
        q{<If "%{HTTP:X-Go} == 'o'">}, 'RProxyPass /app UP/instead', '</If>',
        '<Location /in>', q{<If "%{HTTP:X-Go} == 'l'">}, 'RProxyPass UP/in', '</If>',
        '</Location>',
    ]);
    my $go = sub { return $t->get($_[0], 'X-Go' => $_[1])->header('X-Target') };
    routes($t, '/app/x' => '/app/x', '/part/x' => 404, '/in/x' => 404,
        '/app/private/file.txt' => 'local', '/app/private/none' => 404);
    is($t->get('/app/private/file.txt')->body, "local file\n");
    is($go->('/any/x?q', 'a'), '/whole/any/x?q');
    is($go->('/part/x', 'p'), '/new/x');
    is($t->get('/apart/x', 'X-Go' => 'p')->status, 404, 'a prefix of segments');
    is($go->('/app/x', 'o'), '/instead/x', 'goes before the table');
    is($go->('/in/x', 'l'), '/in/x', 'takes the path of the section around it');
    is($go->('/in', 'l'), '/in');
};

behaviour 'a POST body survives an exemption and an internal redirect', @mixed, sub {
    my ($t) = @_;
    $t->extra_modules('rewrite');
    $t->file('htdocs/old/.htaccess', "RewriteEngine on\nRewriteRule ^(.*)\$ /app/\$1 [L]\n");
    $t->file('htdocs/x/y', '');
    started($t, ['RProxyPass /app UP/app']);
    my $response = $t->request('POST', '/old/x?q', { body => 'some body' });
    is($response->header('X-Target'), '/app/x?q');
    is($response->header('X-Method'), 'POST');
    is($response->body, 'some body');
    is($t->request('PUT', '/old/x', { body => 'more', chunked => 1 })->body, 'more');
};

behaviour 'RProxyRewrite and its flags', sub {
    my ($t) = @_;
    started($t, [
        'RProxyPass /r UP/r', 'RProxyPass /s UP/s',
        'RProxyRewrite ^/r/one/(.*)$ /r/two/$1', 'RProxyRewrite ^/r/two/(.*)$ /r/three/$1',
        'RProxyRewrite ^/r/last/(.*)$ /r/halt/$1 [L]', 'RProxyRewrite ^/r/halt /r/not',
        'RProxyRewrite ^/r/CASE$ /r/no-case [NC]', 'RProxyRewrite ^/r/Sensitive$ /r/wrong',
        'RProxyRewrite ^/r/query/(.*)$ /r/q?id=$1', 'RProxyRewrite ^/r/add/(.*)$ /r/a?id=$1 [QSA]',
        'RProxyRewrite ^/r/drop$ /r/dropped?', 'RProxyRewrite ^/r/dollar$ /r/$$1',
        '<Location /s>', 'RProxyRewrite ^/s/x$ /elsewhere', '</Location>', $t->rule_for_the_rest,
    ]);
    routes($t,
        '/r/one/a?q' => '/r/three/a?q', '/r/last/a' => '/r/halt/a', '/r/case' => '/r/no-case',
        '/r/sensitive' => '/r/sensitive', '/r/query/5?old=1' => '/r/q?id=5',
        '/r/add/5?old=1' => '/r/a?id=5&old=1', '/r/add/5' => '/r/a?id=5',
        '/r/drop?old=1' => '/r/dropped', '/r/dollar' => '/r/$1', '/s/x' => '/elsewhere',
        '/r/query/a%26b=c' => '/r/q?id=a%26b=c', '/r/query/a&b=c' => '/r/q?id=a%26b=c',
        '/r/one/a%20b%2fc' => '/r/three/a%20b%2Fc');
};

behaviour 'paths and queries travel byte for byte', sub {
    my ($t) = @_;
    started($t, ['RProxyPass / UP/']);
    my @same = (
        '/a%20b/%7Euser/%7euser/~user', q{/!$&'()*+,;=:@-._/x}, '/%c3%a4/%C3%A4', '/%25%32%35',
        '/x%3fy%23z', '/x%3Bp;q=1', '/q?', '/q?a=%zz&b=/../c//d&e=?f', '/q?x=%00%0d%0a', '/%5Cx',
        '/a%2Fb%2fc', '/...', '/.hidden', '/a/..b/c..', '/q?unix:/x|http://y/', '/%E2%82%AC',
        '/[x]|^`{}"<>', '/a:b', '/x%0d%0ay', '/x%09y', '/' . 'x' x 4000,
    );
    routes($t, map { ($_, $_) } @same);
};

behaviour 'dot segments and repeated slashes are gone before anyone looks', sub {
    my ($t) = @_;
    started($t, ['RProxyPass /app UP/app', 'RProxyPass / UP/root']);
    routes($t, '/app/./x' => '/app/x', '/app/x/../y' => '/app/y', '/app/../x' => '/root/x',
        '/app/x/..' => '/app/', '/app/%2e/x' => '/app/x', '/app/x/%2E%2e/y' => '/app/y',
        '/app/.%2e/x' => '/root/x', '//app//x' => '/app/x', '/app/x//' => '/app/x/',
        '/./app/x' => '/app/x', '/../x' => 400, '/app/../../x' => 400, '/%2e%2e/x' => 400,
        '/app/%00' => qr/^40[04]$/, '/app/%zz' => 400, '/app\\x' => 400);
};

behaviour 'MergeSlashes off keeps repeated slashes', sub {
    my ($t) = @_;
    started($t, ['MergeSlashes off', 'RProxyPass /app UP/app', $t->rule_for_the_rest]);
    routes($t, '/app/x//y' => '/app/x//y', '/app/x/y//' => '/app/x/y//', '/app/a/..//b' =>
        '/app/b', '/x//app' => $t->rule_for_the_rest ? 502 : 404);
};

for my $mode ('pass', 'decode', 'reject') {
    behaviour "RProxyEncodedSlashes $mode", @mixed, sub {
        my ($t) = @_;
        $t->file('htdocs/local/a/b', 'local');
        started($t, ["RProxyEncodedSlashes $mode", 'RProxyPass /app UP/app',
            'RProxyPass /local !', 'RProxyPass / UP/root']);
        my %expected = (
            pass   => ['/app/a%2Fb' => '/app/a%2Fb', '/app%2fx' => '/root/app%2fx',
                '/app/a%5Cb' => '/app/a%5Cb'],
            decode => ['/app/a%2Fb' => '/app/a/b', '/app%2fx' => '/app/x',
                '/app/a%2F..%2Fb' => '/app/b', '/app/a%2F%2Fb' => '/app/a/b',
                '/app/a%252Fb' => '/app/a%252Fb', '/x%2f..%2f..%2fy' => qr/^40[04]$/],
            reject => ['/app/a%2Fb' => qr/^40[04]$/, '/app%2fx' => qr/^40[04]$/,
                '/app/a%5Cb' => qr/^40[04]$/,
                '/app/a%252Fb' => '/app/a%252Fb'],
        );
        routes($t, @{ $expected{$mode} });
        # What is not proxied stays as httpd has it: 404 unless AllowEncodedSlashes.
        my $local = $t->get('/local/a%2Fb');
        isnt($local->status, 200, 'a file behind an encoded slash is not served');
        is($local->header('X-Target'), undef);
    };
}

behaviour 'an absolute-form target names host and path', except => ['h2', 'engine-h2'], sub {
    my ($t) = @_;
    my $up = started($t, ['RProxyPass /app UP/app']);
    my $authority = 'www.example.test:' . $t->port;
    my $client = $t->raw_client;
    $client->write("GET http://$authority/app/a%20b?q HTTP/1.1\r\nHost: other.test\r\n\r\n");
    is($client->read_response->header('X-Target'), '/app/a%20b?q');
    is($up->request->header('Host'), $authority, 'it goes before Host');
    is($up->request->header('X-Forwarded-Host'), $authority);
    $client->write("GET http://$authority HTTP/1.1\r\nHost: $authority\r\n\r\n");
    is($client->read_response->status, 404, 'no path is /');
};

behaviour 'mod_rewrite in front: [PT] changes path and query, [F] and redirects hold', @mixed, sub {
    my ($t) = @_;
    $t->extra_modules('rewrite');
    started($t, [
        'RewriteEngine on', 'RewriteRule ^/pretty/(\d+)$ /app/item?id=$1 [PT]',
        'RewriteRule ^/blank/(.*)$ "/app/a b/$1" [PT]', 'RewriteRule ^/gone - [F]',
        'RewriteRule ^/moved /app/ [R=302]', 'RewriteRule ^/env - [E=X:1]',
        'RProxyPass /app UP/app',
        'RProxyPass /env UP/env',
    ]);
    routes($t, '/pretty/5' => '/app/item?id=5', '/blank/%c3%a4%25' => '/app/a%20b/%C3%A4%25',
        '/gone/x' => 403, '/moved' => 302, '/app/x' => '/app/x', '/env/%7e' => '/env/%7e');
};

behaviour 'mod_alias and files beside', @mixed, sub {
    my ($t) = @_;
    $t->extra_modules('alias', 'dir');
    $t->file('htdocs/static/index.html', 'index');
    $t->file('htdocs/other/file.txt', 'aliased');
    my $directory = $t->directory;
    started($t, ['Alias /files ' . "$directory/htdocs/other", 'RProxyPass / UP/',
        'RProxyPass /files !', 'RProxyPass /static !', 'DirectoryIndex index.html']);
    is($t->get('/files/file.txt')->body, 'aliased');
    is($t->get('/static/')->body, 'index');
    routes($t, '/' => '/', '/x/' => '/x/', '/x/index.html' => '/x/index.html');
};

behaviour 'ErrorDocument may be proxied, with the request turned into a GET', @mixed, sub {
    my ($t) = @_;
    my $up = started($t, ['ErrorDocument 404 /errors/404', 'RProxyPass /errors UP/pages']);
    my $response = $t->request('POST', '/nothing', { body => 'x' x 1000 });
    is($response->status, 404);
    is($response->header('X-Target'), '/pages/404');
    is($response->header('X-Method'), 'GET');
    is($up->request->header('Content-Length'), undef);
    is($t->get('/errors/404')->status, 200);
};

behaviour 'OPTIONS * is answered by httpd', except => ['h2', 'engine-h2'], sub {
    my ($t) = @_;
    my $up = started($t, ['RProxyPass / UP/']);
    my $client = $t->raw_client;
    $client->write("OPTIONS * HTTP/1.1\r\nHost: www.example.test\r\n\r\n");
    is($client->read_response->status, 200);
    is(scalar($up->requests), 0);
    is($client->request('OPTIONS', '/x')->header('X-Method'), 'OPTIONS');
    $client->write("GET * HTTP/1.1\r\nHost: www.example.test\r\n\r\n");
    like($client->read_response->status, qr/^40[04]$/);
    is(scalar($up->requests), 1);
};

behaviour 'every method travels, with body where it has one', sub {
    my ($t) = @_;
    my $up = started($t, ['RProxyPass / UP/']);
    my $client = $t->client;
    for my $method (qw(PROPFIND QUERY DELETE PATCH MKCOL PURGE X-ODD.1)) {
        my $response = $client->request($method, '/dav', { body => "<$method/>" });
        is($response->header('X-Method'), $method);
        is($response->body, "<$method/>");
    }
    is($client->request('get', '/')->header('X-Method'), 'get', 'methods have a case');
    my $head = $client->request('HEAD', '/x');
    is($head->status, 200);
    is($head->body, '');
    is($up->request->method, 'HEAD');
    is($client->request('GET', '/')->header('X-Method'), 'GET', 'nothing follows the HEAD');
};

behaviour 'TRACE and CONNECT are not proxied', except => ['h2', 'engine-h2'], sub {
    my ($t) = @_;
    my $up = started($t, ['TraceEnable off', 'RProxyPass / UP/']);
    is($t->request('TRACE', '/')->status, 405);
    my $client = $t->raw_client;
    $client->write("CONNECT www.example.test:443 HTTP/1.1\r\nHost: www.example.test:443\r\n\r\n");
    like($client->read_response->status, qr/^4\d\d$/);
    is(scalar($up->requests), 0);
};

done_testing;
