#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Access control and upstream see the same path: whatever gets past a rule of httpd for /admin must
# not be /admin to an upstream that decodes and normalises what it receives, in whichever order
# (CVE-2021-30641, 2021-41773, 2021-42013, 2024-38473, 2024-38474).
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Test;

# Ways to write /admin, or to sneak it past a comparison with it.
my @tricks = (
    '/admin', '/admin/', '/admin/x', '/admin?x', '/%61dmin', '/%61%64%6d%69%6e', '/%61dmin/x',
    '/admin%2f', '/admin%2Fx', '/admin%2f..%2fadmin', '/%2fadmin', '/%2Fadmin/x', '/.%2fadmin',
    '//admin', '///admin/x', '/./admin', '/.//admin', '/%2e/admin', '/%2E/admin/x',
    '/x/../admin', '/x/%2e%2e/admin', '/x/%2E%2E/admin', '/x/.%2e/admin', '/x/%2e./admin/y',
    '/x/..%2fadmin', '/x/..%2Fadmin', '/x/%2e%2e%2fadmin', '/x%2f..%2fadmin', '/x%2f%2e%2e%2fadmin',
    '/x%2f../admin', '/x/..%2f/admin', '/x/%%32%65%%32%65/admin', '/x/%252e%252e/admin',
    '/x/.%252e/admin', '/x/%25%32%65%25%32%65/admin', '/%2561dmin', '/%252fadmin', '/admin%252f',
    '/admin/.', '/admin/./', '/admin/../admin', '/admin/..', '/admin%2e', '/admin.', '/admin..',
    '/admin;', '/admin;x=1', '/;/admin', '/x/..;/admin', '/x/..;y/admin', '/./;/admin', '/.;/admin',
    '/admin%3b', '/admin%3bx=1', '/x/..%3b/admin', '/admin%3f', '/admin%3fx', '/x%3f/../admin',
    '/admin%23', '/admin%23x', '/x%23/../admin', '/admin%20', '/%20admin', '/admin%09', '/admin%00',
    '/admin%00.txt', '/admin%0a', '/%0aadmin', '/admin%0d%0ax', '/admin%5c', '/admin%5Cx',
    '/x\\..\\admin', '/x%5c..%5cadmin', '/%5cadmin', '/x/..%5cadmin', '/.%5cadmin', '/\\admin',
    '/ADMIN', '/Admin', '/%41dmin', '/x/..//admin', '/x//../admin', '/x//..//admin',
    '/x/y/../../admin',
    '/..//admin', '/%c0%ae%c0%ae/admin', '/%u0061dmin', '/admin%', '/admin%2', '/x?/../admin',
    '/x?y=/admin', '/x%3f', '/x#/../admin', '/admin#x',
);

# One step of what upstreams do to a path. They differ in order and number of steps; %2F is data to
# some and a slash to others.
sub decoded { return $_[0] =~ s/%([0-9a-fA-F]{2})/chr hex $1/ger }

sub normalised {
    my ($path) = @_;
    my @segments;
    for my $segment (split m{/+}, $path) {
        next if $segment eq '' || $segment eq '.';
        if ($segment eq '..') { pop @segments }
        else { push @segments, $segment }
    }
    return '/' . join '/', @segments;
}

# The paths that an upstream may take the request target for: CGI and WSGI style (decode all, with
# and without normalisation), RFC 3986 style (segments first), and, for upstreams that need
# RProxyEncodedSlashes reject, Windows style (\ is a slash).
sub readings {
    my ($target, $windows_too) = @_;
    my $path = $target =~ s/\?.*//sr;
    my $segments = join '/', map { decoded($_) =~ s{/}{%2F}gr } split m{/}, $path, -1;
    my $all = decoded($path);
    my $windows = $all =~ tr{\\}{/}r;
    return ($path, normalised($path), $segments, normalised($segments), $all, normalised($all),
        $windows_too ? ($windows, normalised($windows)) : (),
        normalised(decoded(normalised($path))));
}

# The reading of servlet containers, which take parameters off every segment before dot segments
# are removed, shows what /..;/ is for. A parameter at /admin itself is part of that segment's name
# for httpd, as RFC 3986 has it.
sub servlet_escapes {
    my ($target) = @_;
    my $path = $target =~ s/\?.*//sr;
    return grep { /^\.\.?;/ } split m{/}, decoded($path);
}

sub is_admin { return scalar grep { m{^/+admin(?:/|\0|\z)} } @_ }

sub protected {
    my ($t, @lines) = @_;
    my $up = $t->upstream;
    $up->echo;
    my $url = $up->url;
    $t->config(map { s/\bUP\b/$url/gr } @lines);
    $t->start;
    return $up;
}

# No trick may reach the upstream as /admin, and each that is refused is refused plainly.
sub none_gets_through {
    my ($t, $up, $windows_too) = @_;
    my $passed = 0;
    for my $trick (@tricks) {
        my $before = $up->requests;
        my $response = $t->get($trick);
        my $status = $response->status // 'none';
        my @sent = map { $_->target } $up->requests;
        if (@sent == $before) {
            ok($status =~ /^40[0134]$/ || ($t->is_h2 && $status eq 'none'),
                "$trick is refused") or diag("status $status");
            next;
        }
        $passed++;
        my @admin = grep { is_admin($_) } readings($sent[-1], $windows_too);
        ok(!@admin, "$trick, which passes as $sent[-1], is not /admin")
            or diag("an upstream may read $admin[0]");
        ok(!servlet_escapes($sent[-1]), "$trick leads to no other segment behind parameters");
    }
    cmp_ok($passed, '>', 3, 'harmless ones pass');
    return;
}

my @denied = ('<Location /admin>', 'Require all denied', '</Location>');
# One connection for each trick: the lanes that differ in how paths are parsed are enough. (Where a
# part of a virtual host is guarded the engine has no HTTP/2.)
my @lanes = (lanes => ['event', 'h2', 'engine']);

behaviour '<Location /admin> holds against every spelling', @lanes, sub {
    my ($t) = @_;
    my $up = protected($t, 'RProxyPass / UP/', @denied);
    none_gets_through($t, $up);
};

behaviour '<Location /admin> holds with RProxyEncodedSlashes decode', @lanes, sub {
    my ($t) = @_;
    my $up = protected($t, 'RProxyEncodedSlashes decode', 'RProxyPass / UP/', @denied);
    none_gets_through($t, $up);
};

behaviour '<Location /admin> holds with RProxyEncodedSlashes reject',
    lanes => ['event', 'engine'], sub {
    my ($t) = @_;
    my $up = protected($t, 'RProxyEncodedSlashes reject', 'RProxyPass / UP/', @denied);
    none_gets_through($t, $up, 1);
};

behaviour '<Location /admin> holds with AllowEncodedSlashes NoDecode',
    lanes => ['event', 'engine'], sub {
    my ($t) = @_;
    my $up = protected($t, 'AllowEncodedSlashes NoDecode', 'RProxyPass / UP/', @denied);
    none_gets_through($t, $up);
};

behaviour '<LocationMatch> holds against every spelling', lanes => ['event', 'engine'], sub {
    my ($t) = @_;
    my $up = protected($t, 'RProxyPass / UP/', '<LocationMatch "^/admin">', 'Require all denied',
        '</LocationMatch>');
    none_gets_through($t, $up);
};

behaviour 'an exemption with ! holds against every spelling', lanes => ['event', 'engine'], sub {
    my ($t) = @_;
    my $up = protected($t, 'RProxyEncodedSlashes reject', 'RProxyPass / UP/',
        'RProxyPass /admin !');
    none_gets_through($t, $up, 1);
};

behaviour 'RProxyPassMatch with ! holds against every spelling', lanes => ['event', 'engine'], sub {
    my ($t) = @_;
    my $up = protected($t, 'RProxyEncodedSlashes reject', 'RProxyPass / UP/',
        'RProxyPassMatch ^/admin !');
    none_gets_through($t, $up, 1);
};

behaviour 'a rule for /public opens nothing else', @lanes, sub {
    my ($t) = @_;
    my $up = protected($t, 'RProxyPass / UP/', '<Location />', 'Require all denied', '</Location>',
        '<Location /public>', 'Require all granted', '</Location>');
    is($t->get('/public/x')->status, 200);
    for my $trick ('/public/../admin', '/public/%2e%2e/admin', '/public%2f..%2fadmin',
        '/public/..%2fadmin', '/admin%2f..%2fpublic', '/admin/..%2fpublic', '/admin%2f../public',
        '/public/..%5cadmin', '/publicx', '/public/..;/admin', '/admin/%2e%2e%2fpublic',
        '/admin%5c..%5cpublic', '/admin/..%5cpublic') {
        my $before = $up->requests;
        my $status = $t->get($trick)->status;
        my @sent = map { $_->target } $up->requests;
        if (@sent == $before) {
            like($status, qr/^40[034]$/, "$trick is refused");
            next;
        }
        my @outside = grep { !m{^/public(?:/|\z)} } readings($sent[-1]);
        ok(!@outside, "$trick, which passes as $sent[-1], stays in /public")
            or diag("an upstream may read $outside[0]");
        ok(!servlet_escapes($sent[-1]), "$trick leads to no other segment behind parameters");
    }
};

behaviour 'the upstream gets exactly the normal form',
    lanes => ['event', 'h2', 'engine', 'engine-h2'], sub {
    my ($t) = @_;
    my $up = protected($t, 'RProxyPass / UP/', '<LocationMatch ".">', '</LocationMatch>');
    my %form = (
        '/a/./b' => '/a/b', '/a/../b' => '/b', '/a/%2e%2e/%2E/b' => '/b', '/a//b///c' => '/a/b/c',
        '/a/.%2e/b' => '/b', '/a/b/..' => '/a/', '/a/b/.' => '/a/b/', '/%61' => '/%61',
        '/a%2fb' => '/a%2fb', '/a%2Fb/../c' => '/c', '/a%3fb%23c' => '/a%3fb%23c',
        '/a;x/b;y?z' => '/a;x/b;y?z', '/%252e%252e/x' => '/%252e%252e/x', '/a%20b' => '/a%20b',
    );
    is($t->get($_)->header('X-Target'), $form{$_}, $_) for sort keys %form;
};

behaviour 'authentication is asked for under every spelling', lanes => ['event', 'engine'], sub {
    my ($t) = @_;
    $t->extra_modules('auth_basic', 'authn_file');
    my $users = $t->file('users', 'user:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=' . "\n");
    my $up = protected($t, 'RProxyPass / UP/', '<Location /admin>', 'AuthType Basic',
        'AuthName "the area"', "AuthUserFile $users", 'Require valid-user', '</Location>');
    for my $path ('/admin', '/%61dmin', '//admin', '/x/../admin', '/admin%2fx', '/./admin/') {
        my $response = $t->get($path);
        is($response->status, 401, $path);
        is($response->header('WWW-Authenticate'), 'Basic realm="the area"');
    }
    is(scalar($up->requests), 0);
    is($t->get('/admin/x', Authorization => 'Basic dXNlcjpwYXNzd29yZA==')->status, 200);
    is($up->request->target, '/admin/x');
};

done_testing;
