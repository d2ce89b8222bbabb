#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# What site owners may do in .htaccess files: send requests where the administrator allows it, and
# nothing else.
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;

# How a rule is found has to do with neither threads nor TLS.
without_lanes qw(worker tls);

# Where .htaccess files decide the engine has no part.
my @pipeline = (except => ['engine-h2']);

# Starts httpd with these .htaccess files ({ directory => text }), UP standing for the upstream.
sub site {
    my ($t, $files, @lines) = @_;
    my $up = $t->upstream;
    $up->echo;
    my $url = $up->url;
    $t->file("htdocs/$_/.htaccess", $files->{$_} =~ s/\bUP\b/$url/gr) for keys %$files;
    $t->config(map { s/\bUP\b/$url/gr } @lines);
    $t->start;
    return $up;
}

sub target {
    my ($t, @args) = @_;
    my $response = $t->get(@args);
    return $response->status eq '200' ? $response->header('X-Target') // 'local'
                                      : $response->status;
}

behaviour 'a directory is mapped to the target, whatever is in it', @pipeline, sub {
    my ($t) = @_;
    $t->file('htdocs/app/file.txt', 'local');
    my $up = site($t, { app => "RProxyPass UP/base\n" }, 'RProxyAllowTarget UP/');
    is(target($t, '/app/x/y?q=%20'), '/base/x/y?q=%20');
    is(target($t, '/app/'), '/base/');
    is(target($t, '/app/file.txt'), '/base/file.txt');
    is(target($t, '/app/a%20b/%7e'), '/base/a%20b/%7e', 'byte for byte');
    is(target($t, '/apple'), 404);
    is(target($t, '/'), 404, 'the directory above is none of it');
    my $response = $t->request('POST', '/app/post', { body => 'text' });
    is($response->header('X-Method'), 'POST');
    is($response->body, 'text');
    is($up->request->header('Host'), $t->host);
};

behaviour 'PATH is below the directory or anywhere else that the file applies to', @pipeline, sub {
    my ($t) = @_;
    site($t, { app => "RProxyPass /app/api UP/api\n" }, 'RProxyAllowTarget UP/');
    is(target($t, '/app/api/x'), '/api/x');
    is(target($t, '/app/api'), '/api');
    is(target($t, '/app/apix'), 404);
    is(target($t, '/app/other'), 404);
};

behaviour 'directories within directories: the inner rule counts, ! exempts', @pipeline, sub {
    my ($t) = @_;
    $t->file('htdocs/app/local/file.txt', "a file\n");
    site($t, {
        'app'           => "RProxyPass UP/app\n",
        'app/local'     => "RProxyPass !\n",
        'app/other'     => "RProxyPass UP/other\n",
        'app/other/no'  => "RProxyPass !\n",
        'app/other/no/yes' => "RProxyPass UP/again\n",
    }, 'RProxyAllowTarget UP/');
    is(target($t, '/app/x'), '/app/x');
    is($t->get('/app/local/file.txt')->body, "a file\n");
    is(target($t, '/app/other/x'), '/other/x');
    is(target($t, '/app/other/no/x'), 404);
    is(target($t, '/app/other/no/yes/x'), '/again/x');
    is(target($t, '/app/local/../x'), '/app/x');
};

behaviour 'a directory behind an alias has the path of the alias', @pipeline, sub {
    my ($t) = @_;
    $t->extra_modules('alias');
    $t->file('htdocs/elsewhere/.htaccess', '');
    my $directory = $t->directory;
    site($t, { elsewhere => "RProxyPass UP/aliased\n" }, 'RProxyAllowTarget UP/',
        "Alias /name $directory/htdocs/elsewhere");
    is(target($t, '/name/x'), '/aliased/x');
    is(target($t, '/elsewhere/x'), '/aliased/x');
};

behaviour 'only what RProxyAllowTarget lists can be reached, on segment borders', @pipeline, sub {
    my ($t) = @_;
    my $elsewhere = $t->upstream;
    my $other = $elsewhere->url;
    my %files = (
        same => 'RProxyPass UP/ok', below => 'RProxyPass UP/ok/below',
        longer => 'RProxyPass UP/okay', above => 'RProxyPass UP/', case => 'RProxyPass UP/OK',
        dots => 'RProxyPass UP/ok/../no', tls => 'RProxyPass UP/ok', host => "RProxyPass $other/ok",
        socket => 'RProxyPass unix:/run/x.sock|http://127.0.0.1/ok',
        rewrite => "RProxyPass UP/ok\nRProxyRewrite ^/ok/out/(.*)\$ /no/\$1\n"
            . 'RProxyRewrite ^/ok/in/(.*)$ /ok/inside/$1',
    );
    $files{$_} .= "\n" for keys %files;
    $files{tls} =~ s/UP/https:\/\/127.0.0.1/;
    my $up = site($t, \%files, 'RProxyAllowTarget UP/ok');
    is(target($t, '/same/x'), '/ok/x');
    is(target($t, '/below/x'), '/ok/below/x');
    for my $no (qw(longer above case dots tls host socket)) {
        my $offset = $t->log_size;
        is(target($t, "/$no/x"), 403, "$no is refused");
        like($t->wait_log(qr/RP0010/, undef, $offset),
            qr{htdocs/$no/\.htaccess:1\b.*RProxyAllowTarget}, 'and the log says what to do');
    }
    is(target($t, '/rewrite/in/x'), '/ok/inside/x');
    is(target($t, '/rewrite/out/x'), 403, 'RProxyRewrite leads out');
    like($t->wait_log(qr/RP0011/), qr/RProxyAllowTarget/);
    for my $path ('/same/..%2fno', '/same/%2e%2e%2fno', '/same/x%2f..%2f..%2fno',
        '/same/..%5cno') {
        like(target($t, $path), qr/^4\d\d$/, "$path does not lead out");
    }
    is(scalar(grep { $_->target !~ m{^/ok/} } $up->requests), 0);
    is(scalar($elsewhere->connections), 0);
};

behaviour 'without RProxyAllowTarget nothing can be reached', @pipeline, sub {
    my ($t) = @_;
    my $up = site($t, { app => "RProxyPass UP/\n" });
    is(target($t, '/app/x'), 403);
    is(scalar($up->connections), 0);
    $t->wait_log(qr/RP0010.*RProxyAllowTarget/);
};

behaviour 'a virtual host allows what it says itself',
    except => [qw(tls h2 engine-tls engine-h2)], sub {
    my ($t) = @_;
    my $up = $t->upstream;
    $up->echo;
    $t->file('htdocs/app/.htaccess', 'RProxyPass ' . $up->url . "/in\n");
    $t->server_config('RProxyAllowTarget ' . $up->url . '/');
    $t->vhost('less.test', 'RProxyAllowTarget ' . $up->url . '/other');
    $t->start;
    is($t->request('GET', '/app/x')->header('X-Target'), '/in/x');
    is($t->request('GET', '/app/x', { host => 'less.test' })->status, 403);
};

behaviour 'what a .htaccess file may not contain is named', @pipeline, sub {
    my ($t) = @_;
    my %bad = (
        match    => ['RProxyPassMatch ^/x UP/', qr/RProxyPassMatch/],
        allow    => ['RProxyAllowTarget UP/', qr/RProxyAllowTarget/],
        trusted  => ['RProxyTrustedProxy 0.0.0.0/0', qr/RProxyTrustedProxy/],
        slashes  => ['RProxyEncodedSlashes decode', qr/RProxyEncodedSlashes/],
        tls      => ['RProxyTLS verify=off', qr/RProxyTLS/],
        resolver => ['RProxyResolver 127.0.0.1', qr/RProxyResolver/],
        forward  => ['RProxyForwarded off', qr/RProxyForwarded/],
        if       => ['RProxyPass UP/ if=true', qr/RProxyPass.*if=true/],
        weight   => ['RProxyPass UP/ weight=2', qr/RProxyPass.*weight=2/],
        twice    => ["RProxyPass UP/\nRProxyPass UP/b", qr/RProxyPass stands twice/],
        scheme   => ['RProxyPass ftp://127.0.0.1/', qr/unknown scheme/],
        bare     => ['RProxyPass', qr/RProxyPass needs a target/],
    );
    site($t, { map { $_ => "$bad{$_}[0]\n" } keys %bad }, 'RProxyAllowTarget UP/');
    for my $name (sort keys %bad) {
        my $offset = $t->log_size;
        is(target($t, "/$name/x"), 500, $bad{$name}[0] =~ s/\n/ | /r);
        like($t->wait_log(qr{/$name/\.htaccess}, undef, $offset), $bad{$name}[1]);
    }
};

behaviour 'expressions of .htaccess files read no files and no secrets', @pipeline, sub {
    my ($t) = @_;
    my $secret = $t->file('secret.txt', "sesame\n");
    my $up = site($t, {
        file => qq{<If "file('$secret') =~ /sesame/">\nRProxyPass UP/file\n</If>\n},
        size => qq{<If "filesize('$secret') == 7">\nRProxyPass UP/size\n</If>\n},
        arg  => qq{RProxyPass UP/ "if=file('$secret') =~ /sesame/"\n},
        subst => "RProxyPass UP/\nRProxyRewrite ^/(.*)\$ /%{file:$secret}/\$1\n",
        environment => "RProxyPass UP/\nRProxyRewrite ^/(.*)\$ /%{ENV:PATH}/\$1\n",
        fine => qq{<If "%{HTTP:X-Go} == 'yes'">\nRProxyPass UP/fine\n</If>\n},
    }, 'RProxyAllowTarget UP/');
    for my $name (qw(file size arg subst environment)) {
        like(target($t, "/$name/x"), qr/^[45]\d\d$/, $name);
    }
    is(scalar($up->requests), 0, 'and nothing reached the upstream');
    is(target($t, '/fine/x', 'X-Go' => 'yes'), '/fine/x', 'harmless expressions work');
    is(target($t, '/fine/x', 'X-Go' => 'no'), 404);
};

behaviour 'AllowOverride decides', @pipeline, sub {
    my ($t) = @_;
    my $directory = $t->directory;
    my $up = site($t, { map { $_ => "RProxyPass UP/$_\n" } qw(none auth list fileinfo) },
        'RProxyAllowTarget UP/',
        map { ("<Directory $directory/htdocs/$_->[0]>", "AllowOverride $_->[1]", '</Directory>') }
            ['none', 'None'], ['auth', 'AuthConfig Indexes Limit'], ['list', 'None'],
            ['fileinfo', 'FileInfo']);
    is(target($t, '/none/x'), 404, 'AllowOverride None: not read');
    is(target($t, '/auth/x'), 500, 'without FileInfo: refused');
    like($t->wait_log(qr{/auth/\.htaccess}), qr/RProxyPass not allowed here/);
    is(target($t, '/fileinfo/x'), '/fileinfo/x');
    is(scalar($up->requests), 1);
};

behaviour 'access control goes before a .htaccess rule', @pipeline, sub {
    my ($t) = @_;
    my $up = site($t, {
        denied => "Require all denied\nRProxyPass UP/\n", app => "RProxyPass UP/app\n",
        'app/closed' => "Require all denied\n",
    }, 'RProxyAllowTarget UP/', '<Location /app/admin>', 'Require all denied', '</Location>');
    is(target($t, '/denied/x'), 403);
    is(target($t, '/app/closed/x'), 403);
    is(target($t, '/app/admin/x'), 403);
    is(target($t, '/app/%61dmin/x'), 403);
    is(target($t, '/app/x/../admin'), 403);
    is(scalar($up->connections), 0);
};

behaviour 'settings of a .htaccess file hold for its directory', @pipeline, sub {
    my ($t) = @_;
    my $up = site($t, {
        app => "RProxyPass UP/app\nRProxyPreserveHost off\n"
            . "RProxyReverse /elsewhere /mapped\nRProxyErrorOverride 404\n"
            . "ErrorDocument 404 \"ours\"\n",
    }, 'RProxyAllowTarget UP/');
    $up->on_request(sub {
        my ($request) = @_;
        return [404, [], 'theirs'] if $request->target =~ /missing/;
        return [302, [Location => $request->target =~ /own/ ? '/app/next' : '/elsewhere/x']];
    });
    is($t->get('/app/x')->header('Location'), '/mapped/x');
    is($t->get('/app/own')->header('Location'), '/app/next', 'the way back knows the directory');
    is($up->request->header('Host'), '127.0.0.1:' . $up->port);
    is($t->get('/app/missing')->body, 'ours');
};

done_testing;
